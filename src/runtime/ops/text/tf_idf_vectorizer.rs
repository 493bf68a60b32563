//! `TfIdfVectorizer`: how often n-grams of a pool occur in each row, weighted or not.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/nn/tfidfvectorizer.cc`): single
//! items are counted once, longer n-grams once for each distance between their items, from 1 to one
//! more than `max_skip_count`; the weight of an output is the one at its place.

use std::collections::HashMap;
use std::hash::Hash;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, DatumType, TDim, TValue, TVec, Tensor, TractResult, tvec};
use tract_onnx::tract_hir::internal::{anyhow, bail};

use super::super::attributes;
use super::super::kernel::{Built, Fact, Kernel, operator};
use super::super::tensors::{filled, input, values};

/// The n-grams as a tree of their items.
#[derive(Debug)]
struct Pool<T> {
    /// A number for each item.
    items: HashMap<T, u32>,
    /// From a node and the next item to the node behind it; the root is 0.
    next: HashMap<(u32, u32), u32>,
    /// The output of the n-gram that ends in a node.
    outputs: Vec<Option<u32>>,
}

#[derive(Debug)]
enum Grams {
    Ints(Pool<i64>),
    Strings(Pool<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Counts,
    Presence,
    WeightedCounts,
}

#[derive(Debug)]
struct TfIdfVectorizer {
    grams: Grams,
    shortest: usize,
    longest: usize,
    /// Distances between the items of an n-gram: from 1 to this.
    distances: usize,
    mode: Mode,
    /// Empty, or one for each output.
    weights: Vec<f32>,
    outputs: usize,
}

/// Where the n-grams of each length begin in the pool, and the output of each n-gram.
struct Layout {
    starts: Vec<usize>,
    outputs: Vec<u32>,
    lengths: std::ops::RangeInclusive<usize>,
}

/// Builds `TfIdfVectorizer`.
pub(super) fn tf_idf_vectorizer(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let length = |name: &str| -> TractResult<usize> {
        let length = usize::try_from(attributes::int(node, name, 0)?)?;
        if length == 0 {
            bail!("has no {name}, or one of 0");
        }
        Ok(length)
    };
    let (shortest, longest) = (length("min_gram_length")?, length("max_gram_length")?);
    if shortest > longest {
        bail!("has n-grams of {shortest} to {longest} items");
    }
    let skips = usize::try_from(attributes::int(node, "max_skip_count", 0)?)?;
    let mode = match attributes::string(node, "mode", "")?.as_str() {
        "TF" => Mode::Counts,
        "IDF" => Mode::Presence,
        "TFIDF" => Mode::WeightedCounts,
        other => bail!("has the mode {other:?}"),
    };
    let indices = |name: &str| attributes::ints(node, name);
    let starts = indices("ngram_counts")?.into_iter().map(usize::try_from);
    let outputs = indices("ngram_indexes")?.into_iter().map(u32::try_from);
    let layout = Layout {
        starts: starts.collect::<Result<_, _>>()?,
        outputs: outputs.collect::<Result<_, _>>()?,
        lengths: shortest..=longest,
    };
    let outputs = layout.outputs.iter().max();
    let outputs = outputs.ok_or_else(|| anyhow!("has no ngram_indexes"))?;
    let outputs = *outputs as usize + 1;
    let weights = attributes::floats(node, "weights")?;
    if !weights.is_empty() && weights.len() != layout.outputs.len() {
        let (weights, grams) = (weights.len(), layout.outputs.len());
        bail!("has {weights} weights for {grams} n-grams");
    }
    if !weights.is_empty() && weights.len() < outputs {
        bail!("has {} weights for {outputs} outputs", weights.len());
    }
    // Not much more than the file itself holds, so that no small file asks for much memory.
    if outputs > layout.outputs.len().saturating_mul(64).max(1 << 16) {
        bail!("has {outputs} outputs for {} n-grams", layout.outputs.len());
    }
    let strings = attributes::strings(node, "pool_strings")?;
    let ints = attributes::ints(node, "pool_int64s")?;
    let grams = match (ints.is_empty(), strings.is_empty()) {
        (false, true) => Grams::Ints(Pool::new(&ints, &layout)?),
        (true, false) => Grams::Strings(Pool::new(&strings, &layout)?),
        _ => bail!("needs one pool, of integers or of strings"),
    };
    Ok(operator(TfIdfVectorizer {
        grams,
        shortest,
        longest,
        distances: skips.saturating_add(1),
        mode,
        weights,
        outputs,
    }))
}

impl<T: Clone + Eq + Hash> Pool<T> {
    fn new(items: &[T], layout: &Layout) -> TractResult<Self> {
        let mut pool = Self {
            items: HashMap::new(),
            next: HashMap::new(),
            outputs: vec![None],
        };
        let mut outputs = layout.outputs.iter();
        for (index, start) in layout.starts.iter().enumerate() {
            let length = index + 1;
            let end = layout.starts.get(length).copied().unwrap_or(items.len());
            let part = items.get(*start..end);
            let part = part.ok_or_else(|| anyhow!("has ngram_counts beyond the pool"))?;
            if part.len() % length != 0 {
                bail!("has {} items in n-grams of {length}", part.len());
            }
            for gram in part.chunks_exact(length) {
                let output = outputs.next();
                let output = output.ok_or_else(|| anyhow!("has n-grams without an index"))?;
                if layout.lengths.contains(&length) {
                    pool.add(gram, *output)?;
                }
            }
        }
        Ok(pool)
    }

    fn add(&mut self, gram: &[T], output: u32) -> TractResult<()> {
        let mut node = 0;
        for item in gram {
            let new = u32::try_from(self.items.len())?;
            let item = *self.items.entry(item.clone()).or_insert(new);
            let new = u32::try_from(self.outputs.len())?;
            node = *self.next.entry((node, item)).or_insert(new);
            if node == new {
                self.outputs.push(None);
            }
        }
        match self.outputs.get_mut(node as usize) {
            Some(slot @ None) => *slot = Some(output),
            _ => bail!("has an n-gram twice"),
        }
        Ok(())
    }

    /// Adds up the n-grams of a row.
    fn count(&self, of: &TfIdfVectorizer, row: &[T], counts: &mut [f32]) {
        let row: Vec<Option<u32>> = row.iter().map(|i| self.items.get(i).copied()).collect();
        let next = |node: u32, item: Option<u32>| self.next.get(&(node, item?)).copied();
        let mut add = |node: u32| {
            let output = self.outputs.get(node as usize).copied().flatten();
            if let Some(count) = output.and_then(|output| counts.get_mut(output as usize)) {
                *count += 1.0;
            }
        };
        if of.shortest == 1 {
            for item in &row {
                if let Some(node) = next(0, *item) {
                    add(node);
                }
            }
        }
        let shortest = of.shortest.max(2);
        if shortest > of.longest {
            return;
        }
        for distance in 1..=of.distances {
            let Some(span) = distance.checked_mul(shortest - 1) else {
                return;
            };
            if span >= row.len() {
                return;
            }
            for start in 0..row.len() - span {
                let items = row.iter().skip(start).step_by(distance);
                let mut node = 0;
                for (length, item) in (1..=of.longest).zip(items) {
                    match next(node, *item) {
                        Some(next) => node = next,
                        None => break,
                    }
                    if length >= shortest {
                        add(node);
                    }
                }
            }
        }
    }
}

impl TfIdfVectorizer {
    fn rows<T: Clone + Eq + Hash>(
        &self,
        pool: &Pool<T>,
        items: &[T],
        width: usize,
        counts: &mut [f32],
    ) {
        if width == 0 {
            return;
        }
        let rows = items.chunks_exact(width);
        for (row, counts) in rows.zip(counts.chunks_exact_mut(self.outputs)) {
            pool.count(self, row, counts);
        }
    }

    fn weigh(&self, counts: &mut [f32]) {
        if self.mode == Mode::Counts {
            return;
        }
        for row in counts.chunks_exact_mut(self.outputs) {
            for (index, count) in row.iter_mut().enumerate() {
                let weight = self.weights.get(index).copied().unwrap_or(1.0);
                if *count > 0.0 {
                    let times = if self.mode == Mode::Presence {
                        1.0
                    } else {
                        *count
                    };
                    *count = times * weight;
                }
            }
        }
    }

    fn takes(&self, element: DatumType) -> bool {
        match self.grams {
            Grams::Ints(_) => matches!(element, DatumType::I32 | DatumType::I64),
            Grams::Strings(_) => element == DatumType::String,
        }
    }
}

fn ints(x: &Tensor) -> TractResult<Vec<i64>> {
    match x.datum_type() {
        DatumType::I32 => Ok(values::<i32>(x)?.iter().map(|x| i64::from(*x)).collect()),
        _ => Ok(values::<i64>(x)?.to_vec()),
    }
}

impl Kernel for TfIdfVectorizer {
    fn name(&self) -> &'static str {
        "TfIdfVectorizer"
    }

    fn bytes(&self) -> usize {
        let (items, nodes) = match &self.grams {
            Grams::Ints(pool) => (pool.items.len() * size_of::<(i64, u32)>(), pool.next.len()),
            Grams::Strings(pool) => {
                let texts = pool.items.keys().map(String::len);
                let items = pool.items.len() * size_of::<(String, u32)>();
                (items + texts.sum::<usize>(), pool.next.len())
            }
        };
        items + nodes * size_of::<((u32, u32), u32)>() + size_of_val(self.weights.as_slice())
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let [Fact { element, shape }] = inputs else {
            bail!("takes one input, not {}", inputs.len());
        };
        if !self.takes(*element) {
            bail!("has a pool of another type than {element:?}");
        }
        let outputs = TDim::from(self.outputs);
        let shape = match shape.as_slice() {
            [_] => tvec!(outputs),
            [rows, _] => tvec!(rows.clone(), outputs),
            _ => bail!("takes one or two axes, not {}", shape.len()),
        };
        Ok(tvec!(Fact::new(f32::datum_type(), shape)))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        let (shape, width) = match x.shape() {
            [width] => (vec![self.outputs], *width),
            [rows, width] => (vec![*rows, self.outputs], *width),
            shape => bail!("takes one or two axes, not {}", shape.len()),
        };
        let counts = filled(&shape, |counts| {
            match &self.grams {
                Grams::Ints(pool) => self.rows(pool, &ints(x)?, width, counts),
                Grams::Strings(pool) => self.rows(pool, values(x)?, width, counts),
            }
            self.weigh(counts);
            Ok(())
        })?;
        Ok(tvec!(counts))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tensors::tensor_of;
    use super::*;

    /// Two single items and two pairs.
    fn vectorizer(lengths: [usize; 2], skips: usize, mode: Mode) -> TfIdfVectorizer {
        let layout = Layout {
            starts: vec![0, 2],
            outputs: vec![0, 2, 3, 1],
            lengths: lengths[0]..=lengths[1],
        };
        let pool = ["a", "b", "a", "b", "b", "b"].map(str::to_owned);
        TfIdfVectorizer {
            grams: Grams::Strings(Pool::new(&pool, &layout).unwrap()),
            shortest: lengths[0],
            longest: lengths[1],
            distances: skips + 1,
            mode,
            weights: vec![0.5, 2.0, 3.0, 10.0],
            outputs: 4,
        }
    }

    fn counts(kernel: &TfIdfVectorizer, row: &[&str]) -> Vec<f32> {
        let row: Vec<String> = row.iter().map(ToString::to_string).collect();
        let x = tensor_of(&[row.len()], row).unwrap();
        let y = kernel.eval(&[x]).unwrap();
        values::<f32>(&y[0]).unwrap().to_vec()
    }

    #[test]
    fn grams_are_counted_and_weighted() {
        let row = ["a", "b", "b", "c", "b"];
        let count = |lengths, skips, mode| counts(&vectorizer(lengths, skips, mode), &row);
        assert_eq!(count([1, 1], 0, Mode::Counts), [1.0, 0.0, 3.0, 0.0]);
        assert_eq!(count([1, 2], 0, Mode::Counts), [1.0, 1.0, 3.0, 1.0]);
        // Pairs two apart: a-b, and b-b around the c.
        assert_eq!(count([2, 2], 1, Mode::Counts), [0.0, 2.0, 0.0, 2.0]);
        assert_eq!(count([1, 2], 0, Mode::Presence), [0.5, 2.0, 3.0, 10.0]);
        let weighted = count([1, 2], 1, Mode::WeightedCounts);
        assert_eq!(weighted, [0.5, 4.0, 9.0, 20.0]);
        assert_eq!(counts(&vectorizer([1, 2], 5, Mode::Counts), &[]), [0.0; 4]);
    }

    #[test]
    fn rows_are_counted_alone() {
        let kernel = vectorizer([1, 2], 1, Mode::Counts);
        let texts = ["a", "b", "b", "a"].map(str::to_owned).to_vec();
        let y = kernel.eval(&[tensor_of(&[2, 2], texts).unwrap()]).unwrap();
        assert_eq!(y[0].shape(), [2, 4]);
        let expected = [1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0];
        assert_eq!(values::<f32>(&y[0]).unwrap(), expected);
        let fact = |element| [Fact::new(element, [TDim::from(2), TDim::from(2)])];
        assert!(kernel.facts(&fact(i64::datum_type())).is_err());
        assert!(kernel.facts(&fact(String::datum_type())).is_ok());
    }

    #[test]
    fn pools_that_do_not_fit_are_refused() {
        let refused = |starts: &[usize], outputs: &[u32]| {
            let layout = Layout {
                starts: starts.to_vec(),
                outputs: outputs.to_vec(),
                lengths: 1..=2,
            };
            let pool = Pool::new(&[1_i64, 2, 1, 2], &layout);
            pool.unwrap_err().to_string()
        };
        assert!(refused(&[0, 9], &[0, 1, 2]).contains("beyond the pool"));
        assert!(refused(&[0, 1], &[0, 1, 2]).contains("3 items in n-grams of 2"));
        assert!(refused(&[0, 2], &[0, 1]).contains("without an index"));
        assert!(refused(&[0, 4], &[0, 1, 2, 3]).contains("twice"));
    }
}
