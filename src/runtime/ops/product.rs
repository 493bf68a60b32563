//! Products of matrices in a graph (`Gemm`, `MatMul`, `Einsum`), through [`Panels`]: a row's bits
//! do not depend on its batch. tract chooses another kernel for each size of batch.

use std::borrow::Cow;
use std::sync::Arc;

use tract_onnx::prelude::{Datum, DatumType, TDim, TValue, TVec, Tensor, TractResult, tvec};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_hir::internal::bail;

use super::kernel::{Fact, Kernel};
use super::packed::Packed;
use super::panels::{Finish, Panels};
use super::tensors::{filled, input, values};

/// A product of two tensors, as a batch of products of matrices.
#[derive(Debug)]
pub(super) struct Product {
    /// Which input gives the rows; the other gives the matrix, if that is not known.
    rows_from: usize,
    rows: Places,
    matrix: Places,
    /// The matrices of the batch, where they are known.
    known: Vec<Arc<Panels>>,
    result: Places,
    shape: Vec<usize>,
    pub(super) finish: Finish,
}

/// Where the values of a batch of matrices lie in a tensor: at the sum of three offsets.
#[derive(Debug, Clone, PartialEq)]
struct Places {
    batch: Vec<usize>,
    rows: Vec<usize>,
    columns: Vec<usize>,
}

/// What an axis of the product is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Batch,
    Rows,
    Columns,
    Depth,
}

/// An axis: its length, and its position in the rows, the matrix and the result.
#[derive(Debug, Clone, Copy)]
struct Axis {
    role: Role,
    length: usize,
    at: [Option<usize>; 3],
}

const ROWS: usize = 0;
const MATRIX: usize = 1;
const RESULT: usize = 2;

impl Product {
    /// `op` as a product, for inputs of these shapes, of which one may be known; `None` where it
    /// is another kind of sum.
    pub(super) fn of(
        op: &EinSum,
        shapes: [&[usize]; 2],
        constants: [Option<&Tensor>; 2],
        packed: &Packed,
    ) -> Option<Self> {
        if op.q_params.is_some() || op.operating_dt != DatumType::F32 {
            return None;
        }
        let rows_from = match constants {
            [None, _] => 0,
            [Some(_), None] => 1,
            [Some(_), Some(_)] => return None,
        };
        let [first, second] = shapes;
        let [_, known] = order(rows_from, constants);
        let shapes = order(rows_from, [first, second]);
        let axes = axes(op, rows_from, shapes)?;
        let [rows_shape, matrix_shape] = shapes;
        let shape = result_shape(&axes)?;
        let rows = places(&axes, ROWS, rows_shape, [Role::Rows, Role::Depth]);
        let matrix = places(&axes, MATRIX, matrix_shape, [Role::Depth, Role::Columns]);
        let result = places(&axes, RESULT, &shape, [Role::Rows, Role::Columns]);
        let known = match known {
            Some(tensor) => {
                let panels = matrix.panels(values::<f32>(tensor).ok()?);
                panels
                    .into_iter()
                    .map(|panels| packed.shared(panels))
                    .collect()
            }
            None => Vec::new(),
        };
        Some(Self {
            rows_from,
            rows,
            matrix,
            known,
            result,
            shape,
            finish: Finish::default(),
        })
    }

    /// The input that gives the rows, and whether it is the only one.
    pub(super) fn inputs(&self) -> [Option<usize>; 2] {
        if self.known.is_empty() {
            [Some(0), Some(1)]
        } else {
            [Some(self.rows_from), None]
        }
    }

    /// Takes in what is added to the result: `bias` of as many axes, with one value for each column.
    /// `false`: it is something else.
    pub(super) fn add(&mut self, bias: &Tensor) -> bool {
        let Ok(from) = values::<f32>(bias) else {
            return false;
        };
        if bias.rank() != self.shape.len() {
            return false;
        }
        let pairs = bias.shape().iter().zip(&self.shape);
        if !pairs
            .clone()
            .all(|(bias, result)| *bias == 1 || bias == result)
        {
            return false;
        }
        // The offset of a place of the result, in the bias.
        let strides = strides(&self.shape);
        let narrow = super::product::strides(bias.shape());
        let offset = |place: usize| {
            let axes = strides
                .iter()
                .zip(&self.shape)
                .zip(narrow.iter().zip(bias.shape()));
            axes.map(|((stride, length), (narrow, bias))| place / stride % length % bias * narrow)
                .sum::<usize>()
        };
        let moves = |offsets: &[usize]| offsets.iter().any(|place| offset(*place) != 0);
        if moves(&self.result.batch) || moves(&self.result.rows) {
            return false;
        }
        let columns = self.result.columns.iter();
        let bias = columns.map(|place| from.get(offset(*place)).copied());
        let Some(bias) = bias.collect::<Option<Vec<f32>>>() else {
            return false;
        };
        self.finish = Finish::adding(&bias);
        true
    }

    fn multiply(&self, rows: &[f32], panels: &Panels, start: usize, to: &mut [f32]) {
        let Places {
            rows: across,
            columns,
            ..
        } = &self.result;
        let len = across.len() * columns.len();
        let base = across
            .first()
            .zip(columns.first())
            .map_or(0, |(a, b)| a + b)
            + start;
        if in_order(across, columns) {
            if let Some(to) = to.get_mut(base..base + len) {
                panels.multiply(rows, &self.finish, to);
            }
            return;
        }
        let mut block = vec![0.0; len];
        panels.multiply(rows, &self.finish, &mut block);
        for (row, values) in across.iter().zip(block.chunks_exact(columns.len().max(1))) {
            for (column, value) in columns.iter().zip(values) {
                if let Some(slot) = to.get_mut(start + row + column) {
                    *slot = *value;
                }
            }
        }
    }
}

impl Kernel for Product {
    fn name(&self) -> &'static str {
        "Product"
    }

    fn inputs(&self) -> usize {
        self.inputs().iter().flatten().count()
    }

    fn multiplications(&self) -> usize {
        self.rows.len() * self.result.columns.len()
    }

    fn facts(&self, _: &[Fact]) -> TractResult<TVec<Fact>> {
        let shape = self.shape.iter().map(|length| TDim::from(*length));
        Ok(tvec!(Fact::new(f32::datum_type(), shape)))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let [rows, matrix] = match inputs {
            [rows] => [values::<f32>(rows)?, &[]],
            _ => order(
                self.rows_from,
                [values(input(inputs, 0)?)?, values(input(inputs, 1)?)?],
            ),
        };
        if rows.len() != self.rows.len()
            || (self.known.is_empty() && matrix.len() != self.matrix.len())
        {
            bail!("the inputs have other shapes than those that were announced");
        }
        let product = filled(&self.shape, |to| {
            let made = if self.known.is_empty() {
                self.matrix.panels(matrix)
            } else {
                Vec::new()
            };
            let known = self.known.iter().map(|panels| &**panels);
            let starts = self.rows.batch.iter().zip(&self.result.batch);
            for ((from, start), panels) in starts.zip(made.iter().chain(known)) {
                let rows = self.rows.gathered(rows, *from);
                self.multiply(&rows, panels, *start, to);
            }
            Ok(())
        })?;
        Ok(tvec!(product))
    }
}

impl Places {
    fn len(&self) -> usize {
        self.batch.len() * self.rows.len() * self.columns.len()
    }

    /// The matrix of the batch that starts at `start`, row by row.
    fn gathered<'a>(&self, values: &'a [f32], start: usize) -> Cow<'a, [f32]> {
        let len = self.rows.len() * self.columns.len();
        if in_order(&self.rows, &self.columns)
            && let Some(matrix) = values.get(start..start + len)
        {
            return Cow::Borrowed(matrix);
        }
        let mut matrix = Vec::with_capacity(len);
        for row in &self.rows {
            let value = |column: &usize| values.get(start + row + column).copied();
            matrix.extend(
                self.columns
                    .iter()
                    .map(|column| value(column).unwrap_or_default()),
            );
        }
        Cow::Owned(matrix)
    }

    /// All matrices, packed.
    fn panels(&self, values: &[f32]) -> Vec<Panels> {
        let (rows, columns) = (&self.rows, &self.columns);
        let of = |start: &usize| {
            Panels::new(rows.len(), columns.len(), |row, column| {
                let place = rows.get(row).zip(columns.get(column));
                let place = place.map_or(0, |(row, column)| start + row + column);
                values.get(place).copied().unwrap_or_default()
            })
        };
        self.batch.iter().map(of).collect()
    }
}

/// Whether the values of a matrix lie one behind the other, row by row.
fn in_order(rows: &[usize], columns: &[usize]) -> bool {
    let steps = |offsets: &[usize], step: usize| {
        offsets
            .iter()
            .enumerate()
            .all(|(index, offset)| *offset == index * step)
    };
    steps(columns, 1) && steps(rows, columns.len())
}

/// The two with the one that `first` says in front.
fn order<T>(first: usize, [a, b]: [T; 2]) -> [T; 2] {
    if first == 0 { [a, b] } else { [b, a] }
}

/// The axes of `op`, in the order of the result, those of the depth in the order of the matrix.
fn axes(op: &EinSum, rows_from: usize, shapes: [&[usize]; 2]) -> Option<Vec<Axis>> {
    let mut axes = Vec::new();
    for axis in op.axes.iter_all_axes() {
        let ([first, second], [result]) = (&*axis.inputs, &*axis.outputs) else {
            return None;
        };
        let [rows, matrix] = order(rows_from, [first, second]);
        let one = |positions: &[usize]| match positions {
            [] => Some(None),
            [position] => Some(Some(*position)),
            _ => None,
        };
        let at = [one(rows)?, one(matrix)?, one(result)?];
        let lengths = shapes
            .iter()
            .zip(at)
            .filter_map(|(shape, at)| shape.get(at?).copied());
        // An axis that no input has was left out there, as its length is 1.
        let length = lengths.clone().next().unwrap_or(1);
        let role = match at {
            [Some(_), Some(_), Some(_)] | [None, None, Some(_)] => Role::Batch,
            [Some(_), None, Some(_)] => Role::Rows,
            [None, Some(_), Some(_)] => Role::Columns,
            [Some(_), Some(_), None] => Role::Depth,
            _ if length == 1 => Role::Batch,
            _ => return None,
        };
        // An axis that is stretched is another matter.
        if !lengths.into_iter().all(|other| other == length) {
            return None;
        }
        axes.push(Axis { role, length, at });
    }
    axes.sort_by_key(|axis| {
        let [_, matrix, result] = axis.at;
        (result.is_none(), result.or(matrix))
    });
    let volume = axes.iter().map(|axis| axis.length).product::<usize>();
    (volume > 0 && axes.iter().any(|axis| axis.role == Role::Depth)).then_some(axes)
}

fn result_shape(axes: &[Axis]) -> Option<Vec<usize>> {
    let of_result = axes.iter().filter_map(|axis| {
        let [_, _, result] = axis.at;
        Some((result?, axis.length))
    });
    // They are in order; a gap would be an axis that the inputs do not have.
    of_result
        .enumerate()
        .map(|(index, (position, length))| (index == position).then_some(length))
        .collect()
}

/// Row-major.
fn strides(shape: &[usize]) -> Vec<usize> {
    let after = |axis: usize| shape.get(axis + 1..).unwrap_or_default().iter().product();
    (0..shape.len()).map(after).collect()
}

/// Where the values of a tensor of `shape` lie, which has the axes at their positions in `of`.
fn places(axes: &[Axis], of: usize, shape: &[usize], [rows, columns]: [Role; 2]) -> Places {
    let strides = strides(shape);
    let offsets = |role: Role| {
        let mut offsets = vec![0];
        for axis in axes.iter().filter(|axis| axis.role == role) {
            let at = axis.at.get(of).copied().flatten();
            let stride = at
                .and_then(|at| strides.get(at))
                .copied()
                .unwrap_or_default();
            let steps = |offset: usize| (0..axis.length).map(move |step| offset + step * stride);
            offsets = offsets.into_iter().flat_map(steps).collect();
        }
        offsets
    };
    Places {
        batch: offsets(Role::Batch),
        rows: offsets(rows),
        columns: offsets(columns),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tract_onnx::tract_core::internal::{AxesMapping, EvalContext, EvalOp};

    use super::*;
    use crate::runtime::ops::tensors::tensor_of;

    fn tensor(shape: &[usize], seed: u32) -> TValue {
        let len = shape.iter().product::<usize>();
        let value = |i| ((i as f32 + 1.0) * (seed as f32 + 0.37)).sin();
        tensor_of(shape, (0..len).map(value).collect()).unwrap()
    }

    proptest! {
        /// Any order of axes, and either input known, or none.
        #[test]
        fn it_is_what_tract_computes(
            form in prop::sample::select(vec![
                "mk,kn->mn", "mk,nk->mn", "km,kn->nm", "bmk,kn->bmn", "bmhd,bnhd->bhmn",
                "bhmn,bnhd->bmhd", "mhd,hdn->mn", "k,kn->n", "mk,k->m", "bk,bk->b", "amk,bkn->bamn",
                "mk,k->mb", "mk,k->bm", "amk,kn->mn", "mk,bkn->mn", "k,k->ab",
            ]),
            sizes in prop::collection::vec(1..7_usize, 7),
            known in 0..3_usize,
            seed in any::<u16>(),
        ) {
            let (inputs, _) = form.split_once("->").unwrap();
            // What is in one input alone, or in none, has the length 1.
            let alone = |axis: char| form.matches(axis).count() == 1;
            let size = |axis: char| match axis {
                _ if alone(axis) => 1,
                'n' => sizes[0] * 5,
                _ => sizes["abmnkhd".find(axis).unwrap()],
            };
            let inputs: Vec<TValue> = inputs
                .split(',')
                .map(|axes| axes.chars().map(size).collect::<Vec<_>>())
                .enumerate()
                .map(|(i, shape)| tensor(&shape, u32::from(seed) + i as u32))
                .collect();
            let op = EinSum::new(form.parse::<AxesMapping>().unwrap(), DatumType::F32);
            let constant = |index: usize| (known == index).then_some(&*inputs[index]);
            let shapes = [inputs[0].shape(), inputs[1].shape()];
            let product = Product::of(&op, shapes, [constant(0), constant(1)], &Packed::default()).unwrap();
            let given: Vec<TValue> =
                product.inputs().into_iter().flatten().map(|i| inputs[i].clone()).collect();
            let found = product.eval(&given).unwrap();
            let expected =
                op.eval(&EvalContext::out_of_plan(), inputs.iter().cloned().collect()).unwrap();
            prop_assert_eq!(found[0].shape(), expected[0].shape());
            let [found, expected] =
                [&found, &expected].map(|v| values::<f32>(&v[0]).unwrap().to_vec());
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert!((found - expected).abs() < 1e-4, "{found} {expected}");
            }
        }
    }

    #[test]
    fn what_is_added_to_columns_is_taken_in() {
        let op = EinSum::new("mk,kn->mn".parse().unwrap(), DatumType::F32);
        let (x, w) = (tensor(&[3, 2], 1), tensor(&[2, 4], 2));
        let product = || {
            Product::of(
                &op,
                [x.shape(), w.shape()],
                [None, Some(&*w)],
                &Packed::default(),
            )
            .unwrap()
        };
        let bias = tensor_of(&[1, 4], vec![1.0_f32, 2.0, 3.0, 4.0]).unwrap();
        let mut with = product();
        assert!(with.add(&bias));
        let [plain, with] = [&product(), &with].map(|p| {
            let y = p.eval(std::slice::from_ref(&x)).unwrap();
            values::<f32>(&y[0]).unwrap().to_vec()
        });
        for (index, (plain, with)) in plain.iter().zip(with).enumerate() {
            // The sum begins with what is added, so it rounds in other places.
            assert!((plain + (index % 4) as f32 + 1.0 - with).abs() < 1e-6);
        }
        assert!(product().add(&tensor(&[1, 1], 3)));
        assert!(!product().add(&tensor(&[3, 1], 3)));
        assert!(!product().add(&tensor(&[3, 4], 3)));
        assert!(!product().add(&tensor(&[4], 3)));
    }
}
