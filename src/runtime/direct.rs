//! Models that are one operator of ours, and what finishes its scores: most tree ensembles and
//! linear models. They are run on the columns of a batch as they are, of any number of rows, since
//! such operators compute each row by itself.

use std::sync::Arc;

use tract_onnx::prelude::{
    DatumType, OutletId, TractResult, TypedModel, TypedNode, TypedSimplePlan,
};
use tract_onnx::tract_core::ops::source::TypedSource;
use tract_onnx::tract_hir::internal::anyhow;

use super::ops::direct::{Finish, Rows, Score, finish, score};
use crate::codec::{Columns, Values};

/// A model that needs no plan.
#[derive(Debug, Clone)]
pub(super) struct Direct {
    graph: Arc<TypedSimplePlan>,
    /// The node that scores, and those that finish the scores, in their order.
    scores: usize,
    finishes: Vec<usize>,
    /// The outputs that hold labels and scores.
    label_output: Option<usize>,
    score_output: usize,
}

impl Direct {
    /// The model of `graph`, if it is of this kind.
    pub(super) fn of(graph: &Arc<TypedSimplePlan>) -> Option<Self> {
        let model = graph.model();
        let mut nodes = model.eval_order().ok()?.into_iter();
        let source = model.node(nodes.next()?);
        let head = model.node(nodes.next()?);
        let fact = &source.outputs.first()?.fact;
        let is_matrix = fact.datum_type == DatumType::F32 && fact.rank() == 2;
        if !source.op_is::<TypedSource>() || !is_matrix || !takes(head, OutletId::new(source.id, 0))
        {
            return None;
        }
        score(&*head.op)?;
        let last = head.outputs.len().checked_sub(1)?;
        let mut scores = OutletId::new(head.id, last);
        let mut finishes = Vec::new();
        for id in nodes {
            let node = model.node(id);
            finish(&*node.op)?;
            if !takes(node, scores) {
                return None;
            }
            finishes.push(id);
            scores = OutletId::new(id, 0);
        }
        let float = |outlet| Some(model.outlet_fact(outlet).ok()?.datum_type == DatumType::F32);
        if !float(scores)? || model.inputs.len() != 1 {
            return None;
        }
        let labels = (last == 1).then(|| OutletId::new(head.id, 0));
        let [label_output, score_output] = outputs(model, labels, scores)?;
        Some(Self {
            graph: Arc::clone(graph),
            scores: head.id,
            finishes,
            label_output,
            score_output: score_output?,
        })
    }

    /// Runs the whole batch.
    pub(super) fn run(&self, inputs: &Columns, outputs: &mut Columns) -> TractResult<()> {
        let missing = || anyhow!("a column is missing or of another type");
        let column = inputs.columns.first().ok_or_else(missing)?;
        let Values::Float(values) = &column.values else {
            return Err(missing());
        };
        let (count, width) = (inputs.rows, column.row_len);
        if count.checked_mul(width) != Some(values.len()) {
            return Err(anyhow!("the column of the input has too few values"));
        }
        let rows = Rows {
            values,
            count,
            width,
        };
        let (labels, scores) = match self.label_output {
            None => (None, outputs.columns.get_mut(self.score_output)),
            Some(labels) => {
                let both = [labels, self.score_output];
                let [labels, scores] = outputs.columns.get_disjoint_mut(both)?;
                (Some(&mut labels.values), Some(scores))
            }
        };
        let scores = scores.ok_or_else(missing)?;
        let Values::Float(numbers) = &mut scores.values else {
            return Err(missing());
        };
        self.head()?.append(rows, numbers, labels)?;
        if count.checked_mul(scores.row_len) != Some(numbers.len()) {
            return Err(anyhow!(
                "there are {} scores for {count} rows",
                numbers.len()
            ));
        }
        for node in &self.finishes {
            let last: &dyn Finish =
                finish(&*self.graph.model().node(*node).op).ok_or_else(missing)?;
            last.finish(numbers, scores.row_len);
        }
        outputs.rows = count;
        Ok(())
    }

    fn head(&self) -> TractResult<&dyn Score> {
        let head = score(&*self.graph.model().node(self.scores).op);
        head.ok_or_else(|| anyhow!("the model's operator is another one"))
    }
}

/// Whether `node` takes `outlet` and nothing else.
fn takes(node: &TypedNode, outlet: OutletId) -> bool {
    node.inputs.as_slice() == [outlet]
}

/// Which outputs of `model` hold labels and scores; `None` where any holds something else, or two
/// the same.
fn outputs(
    model: &TypedModel,
    labels: Option<OutletId>,
    scores: OutletId,
) -> Option<[Option<usize>; 2]> {
    let mut found = [None; 2];
    for (index, outlet) in model.outputs.iter().enumerate() {
        let [of_labels, of_scores] = &mut found;
        let slot = match *outlet {
            outlet if Some(outlet) == labels => of_labels,
            outlet if outlet == scores => of_scores,
            _ => return None,
        };
        if slot.replace(index).is_some() {
            return None;
        }
    }
    Some(found)
}
