//! `LabelEncoder` and `CategoryMapper`: a value for each key, and one for all others.
//!
//! Semantics as in ONNX Runtime (`onnxruntime/core/providers/cpu/ml/label_encoder.h` and
//! `category_mapper.h`): of keys that are listed twice the first counts, except in `CategoryMapper`
//! and in version 1 of `LabelEncoder`; NaN is a key from version 4 on, the specification's promise
//! for version 2 notwithstanding.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, DatumType, TValue, TVec, Tensor, TractResult, tvec};
use tract_onnx::tract_hir::internal::{IntoTensor, anyhow, bail};

use super::attributes;
use super::kernel::{Built, Fact, Kernel, operator};
use super::lookup::{Keys, Twice};
use super::tensors::{filled, input, tensor_of, values, with_number_type};

#[derive(Debug)]
struct Mapping {
    name: &'static str,
    /// One for each type of input that the node can take.
    tables: Vec<Table>,
}

/// Keys, and their values in the order of the positions, the default last.
#[derive(Debug)]
struct Table {
    keys: Keys,
    values: Vector,
}

/// Values of one type.
#[derive(Debug)]
enum Vector {
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<String>),
    /// Any other number type.
    Other(Tensor),
}

impl Vector {
    fn element(&self) -> DatumType {
        match self {
            Self::Ints(_) => i64::datum_type(),
            Self::Floats(_) => f32::datum_type(),
            Self::Strings(_) => String::datum_type(),
            Self::Other(tensor) => tensor.datum_type(),
        }
    }

    /// Number of values, the default included.
    fn len(&self) -> usize {
        match self {
            Self::Ints(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Strings(values) => values.len(),
            Self::Other(tensor) => tensor.len(),
        }
    }

    /// The values of a tensor and the default for them.
    fn of(tensor: &Tensor, default: Option<&Tensor>, node: &NodeProto) -> TractResult<Self> {
        if let Some(default) = default
            && (default.datum_type() != tensor.datum_type() || default.len() != 1)
        {
            bail!("default_tensor holds not one value of the type of the values");
        }
        Ok(match tensor.datum_type() {
            DatumType::I64 => Self::Ints(joined(tensor, default, default_int(node)?)?),
            DatumType::F32 => Self::Floats(joined(tensor, default, default_float(node)?)?),
            DatumType::String => Self::Strings(joined(tensor, default, default_string(node)?)?),
            other => with_number_type!(other, T => {
            let otherwise = if other.is_float() { -0.0_f64 as T } else { -1_i64 as T };
                            let all = joined::<T>(tensor, default, otherwise)?;
                            Self::Other(tensor_of(&[all.len()], all)?.into_tensor())
                        }),
        })
    }
}

/// The values, and the default behind them.
fn joined<T: Datum + Clone>(
    tensor: &Tensor,
    default: Option<&Tensor>,
    otherwise: T,
) -> TractResult<Vec<T>> {
    let default = match default {
        Some(default) => values::<T>(default)?.first().cloned(),
        None => None,
    };
    let mut all = values::<T>(tensor)?.to_vec();
    all.push(default.unwrap_or(otherwise));
    Ok(all)
}

fn default_int(node: &NodeProto) -> TractResult<i64> {
    attributes::int(node, "default_int64", -1)
}

fn default_float(node: &NodeProto) -> TractResult<f32> {
    attributes::float(node, "default_float", -0.0)
}

fn default_string(node: &NodeProto) -> TractResult<String> {
    attributes::string(node, "default_string", "_Unused")
}

fn with_default<T>(mut values: Vec<T>, default: T) -> Vec<T> {
    values.push(default);
    values
}

/// Tables for both directions between `strings` and `ints`.
fn both_ways(
    name: &'static str,
    node: &NodeProto,
    strings: Vec<String>,
    ints: &[i64],
) -> TractResult<Mapping> {
    if strings.len() != ints.len() {
        bail!("has {} strings for {} integers", strings.len(), ints.len());
    }
    let to_ints = Table {
        keys: Keys::strings(&strings, Twice::Last),
        values: Vector::Ints(with_default(ints.to_vec(), default_int(node)?)),
    };
    let to_strings = Table {
        keys: Keys::ints(ints, Twice::Last),
        values: Vector::Strings(with_default(strings, default_string(node)?)),
    };
    Ok(Mapping {
        name,
        tables: vec![to_ints, to_strings],
    })
}

/// Builds `CategoryMapper`.
pub(super) fn category_mapper(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let strings = attributes::strings(node, "cats_strings")?;
    let ints = attributes::ints(node, "cats_int64s")?;
    Ok(operator(both_ways("CategoryMapper", node, strings, &ints)?))
}

/// Builds `LabelEncoder`, of any version.
pub(super) fn label_encoder(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    const NAME: &str = "LabelEncoder";
    let classes = attributes::strings(node, "classes_strings")?;
    if !classes.is_empty() {
        let ints: Vec<i64> = (0..).take(classes.len()).collect();
        return Ok(operator(both_ways(NAME, node, classes, &ints)?));
    }
    let sets = &context.model.opset_import;
    let version = sets.iter().find(|set| set.domain == "ai.onnx.ml");
    let nan_is_a_key = version.is_some_and(|set| set.version >= 4);
    let table = Table {
        keys: keys(node, nan_is_a_key)?,
        values: mapped_values(node)?,
    };
    let keys = match &table.keys {
        Keys::Ints(keys) => keys.iter().map(|(_, at)| at + 1).max(),
        Keys::Strings(keys) => keys.iter().map(|(_, at)| at + 1).max(),
        Keys::Floats { sorted, nan } => sorted.iter().map(|(_, at)| at + 1).max().max(*nan),
    };
    if keys.unwrap_or_default() >= table.values.len() {
        bail!("has more keys than values");
    }
    Ok(operator(Mapping {
        name: NAME,
        tables: vec![table],
    }))
}

fn keys(node: &NodeProto, nan_is_a_key: bool) -> TractResult<Keys> {
    let strings = attributes::strings(node, "keys_strings")?;
    let ints = attributes::ints(node, "keys_int64s")?;
    let floats = attributes::floats(node, "keys_floats")?;
    if !strings.is_empty() {
        return Ok(Keys::strings(&strings, Twice::First));
    }
    if !ints.is_empty() {
        return Ok(Keys::ints(&ints, Twice::First));
    }
    if !floats.is_empty() {
        let floats = floats.into_iter().map(f64::from);
        return Ok(Keys::floats(floats, Twice::First, nan_is_a_key));
    }
    let tensor = attributes::tensor(node, "keys_tensor")?;
    let tensor = tensor.ok_or_else(|| anyhow!("has no keys"))?;
    Ok(match tensor.datum_type() {
        DatumType::String => Keys::strings(values::<String>(&tensor)?, Twice::First),
        element if element.is_integer() => {
            Keys::ints(values::<i64>(&*tensor.cast_to::<i64>()?)?, Twice::First)
        }
        DatumType::F32 | DatumType::F64 => {
            let wide = tensor.cast_to::<f64>()?;
            let floats = values::<f64>(&wide)?.iter().copied();
            Keys::floats(floats, Twice::First, nan_is_a_key)
        }
        other => bail!("has keys of the type {other:?}, which is not in the specification"),
    })
}

fn mapped_values(node: &NodeProto) -> TractResult<Vector> {
    let strings = attributes::strings(node, "values_strings")?;
    let ints = attributes::ints(node, "values_int64s")?;
    let floats = attributes::floats(node, "values_floats")?;
    let default = attributes::tensor(node, "default_tensor")?;
    let listed = if !strings.is_empty() {
        tensor_of(&[strings.len()], strings)?
    } else if !ints.is_empty() {
        tensor_of(&[ints.len()], ints)?
    } else if !floats.is_empty() {
        tensor_of(&[floats.len()], floats)?
    } else {
        let tensor = attributes::tensor(node, "values_tensor")?;
        tensor.ok_or_else(|| anyhow!("has no values"))?.into()
    };
    Vector::of(&listed, default.as_ref(), node)
}

impl Table {
    fn map(&self, x: &Tensor) -> TractResult<TValue> {
        match &self.values {
            Vector::Ints(values) => self.gather(x, values),
            Vector::Floats(values) => self.gather(x, values),
            Vector::Strings(all) => {
                let mut mapped = Vec::with_capacity(x.len());
                self.keys.find(x, |at| {
                    let value = at.and_then(|at| all.get(at)).or(all.last());
                    mapped.push(value.cloned().unwrap_or_default());
                    Ok(())
                })?;
                tensor_of(x.shape(), mapped)
            }
            Vector::Other(tensor) => with_number_type!(tensor.datum_type(), T => {
                self.gather(x, values::<T>(tensor)?)
            }),
        }
    }

    fn gather<T: Datum + Copy + Default>(&self, x: &Tensor, all: &[T]) -> TractResult<TValue> {
        let default = all.last().copied().unwrap_or_default();
        filled(x.shape(), |y: &mut [T]| {
            let mut slots = y.iter_mut();
            self.keys.find(x, |at| {
                if let Some(slot) = slots.next() {
                    let value = at.and_then(|at| all.get(at)).copied();
                    *slot = value.unwrap_or(default);
                }
                Ok(())
            })
        })
    }
}

impl Mapping {
    fn table(&self, element: DatumType) -> TractResult<&Table> {
        let mut tables = self.tables.iter();
        tables
            .find(|table| table.keys.takes(element))
            .ok_or_else(|| anyhow!("has no keys of the input's type, {element:?}"))
    }
}

impl Kernel for Mapping {
    fn name(&self) -> &'static str {
        self.name
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let [input] = inputs else {
            bail!("takes one input, not {}", inputs.len());
        };
        let element = self.table(input.element)?.values.element();
        Ok(tvec!(Fact::new(element, input.shape.clone())))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = input(inputs, 0)?;
        Ok(tvec!(self.table(x.datum_type())?.map(x)?))
    }
}
