//! The rules of the axes: axis 0 of every input and output is the batch, all others are fixed.

use super::maps::Maps;
use super::summary::{OnnxDim, OnnxValue};
use super::{LoadError, LoadLimits};
use crate::model::{ElementType, TensorSpec};

/// The inputs' specs, and the one batch size that the model takes where axis 0 is fixed.
pub(super) fn inputs(
    declared: &[OnnxValue],
    maps: &Maps,
) -> Result<(Vec<TensorSpec>, Option<usize>), LoadError> {
    let mut specs = Vec::new();
    let mut batch: Option<(&OnnxValue, Option<usize>)> = None;
    for value in declared {
        let (mut spec, rows) = input(value)?;
        spec.classes = maps.inputs.get(&value.name).cloned();
        specs.push(spec);
        match batch {
            None => batch = Some((value, rows)),
            Some((_, before)) if before == rows => {}
            Some((first, before)) => {
                let length =
                    |rows: Option<usize>| rows.map_or("any length".to_owned(), |n| n.to_string());
                return Err(LoadError::new(format!(
                    "axis 0 is the batch, but it is {} in input {:?} and {} in input {:?}",
                    length(before),
                    first.name,
                    length(rows),
                    value.name
                )));
            }
        }
    }
    match batch {
        Some((_, rows)) => Ok((specs, rows)),
        None => Err(LoadError::new("the model has no inputs")),
    }
}

fn input(value: &OnnxValue) -> Result<(TensorSpec, Option<usize>), LoadError> {
    let name = &value.name;
    let element = element(value, "input")?;
    let Some(shape) = &value.shape else {
        return Err(LoadError::new(format!(
            "input {name:?} declares no shape; export the model with input shapes"
        )));
    };
    let Some((batch, row)) = shape.split_first() else {
        return Err(LoadError::new(format!(
            "input {name:?} is a single value without a batch axis; axis 0 must be the batch"
        )));
    };
    let fixed = |(axis, dim): (usize, &OnnxDim)| match dim {
        OnnxDim::Fixed(length) => Ok(*length),
        OnnxDim::Symbol(_) | OnnxDim::Unknown => Err(LoadError::new(format!(
            "axis {} of input {name:?} has no fixed length ({dim}); only axis 0, the batch, may \
             vary",
            axis + 1
        ))),
    };
    let row_shape = row
        .iter()
        .enumerate()
        .map(fixed)
        .collect::<Result<_, _>>()?;
    let rows = match batch {
        OnnxDim::Fixed(rows) => Some(*rows),
        OnnxDim::Symbol(_) | OnnxDim::Unknown => None,
    };
    let spec = TensorSpec {
        name: name.clone(),
        element,
        row_shape,
        classes: None,
    };
    Ok((spec, rows))
}

fn element(value: &OnnxValue, what: &str) -> Result<ElementType, LoadError> {
    let name = &value.name;
    match (value.element_type(), &value.element) {
        (Some(element), _) => Ok(element),
        (None, Some(element)) => Err(LoadError::new(format!(
            "{what} {name:?} has the element type {element}, which is not supported"
        ))),
        (None, None) => Err(LoadError::new(format!(
            "{what} {name:?} is not a tensor (a sequence, a map or untyped), which is not supported"
        ))),
    }
}

/// Refuses a plan whose inputs would take more than `limits` allow.
pub(super) fn check_size(
    specs: &[TensorSpec],
    rows: usize,
    limits: &LoadLimits,
) -> Result<(), LoadError> {
    for spec in specs {
        let values = spec
            .row_shape
            .iter()
            .try_fold(rows, |values, axis| values.checked_mul(*axis));
        if values.is_none_or(|values| values > limits.max_input_values) {
            return Err(LoadError::new(format!(
                "input {spec} with a batch of {rows} has more than {} values",
                limits.max_input_values
            )));
        }
    }
    Ok(())
}

/// What a runtime computes for one output at one batch size; `None` is a length or a type that
/// only a run would tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Computed {
    pub(super) element: Option<ElementType>,
    pub(super) shape: Vec<Option<usize>>,
}

/// The outputs' specs, from what is computed for a batch of `rows`.
pub(super) fn outputs(
    declared: &[OnnxValue],
    maps: &Maps,
    computed: &[Computed],
    rows: usize,
) -> Result<Vec<TensorSpec>, LoadError> {
    if declared.is_empty() {
        return Err(LoadError::new("the model has no outputs"));
    }
    if declared.len() != computed.len() {
        return Err(LoadError::new(format!(
            "the graph declares {} outputs, the runtime computes {}",
            declared.len(),
            computed.len()
        )));
    }
    let pairs = declared.iter().zip(computed);
    pairs
        .map(|(value, computed)| output(value, maps.outputs.get(&value.name), computed, rows))
        .collect()
}

fn output(
    value: &OnnxValue,
    classes: Option<&Vec<String>>,
    computed: &Computed,
    rows: usize,
) -> Result<TensorSpec, LoadError> {
    let name = &value.name;
    let declared = match classes {
        // The declared type is that of the map; its values are floats.
        Some(_) => ElementType::Float,
        None => element(value, "output")?,
    };
    if computed.element != Some(declared) {
        return Err(LoadError::new(format!(
            "output {name:?} is declared as {declared}, but the runtime computes {}",
            computed
                .element
                .map_or("another type".to_owned(), |element| element.to_string())
        )));
    }
    let known = |(axis, length): (usize, &Option<usize>)| {
        length.ok_or_else(|| {
            LoadError::new(format!(
                "the length of axis {axis} of output {name:?} depends on the data; it must be fixed"
            ))
        })
    };
    let shape: Vec<usize> = computed
        .shape
        .iter()
        .enumerate()
        .map(known)
        .collect::<Result<_, _>>()?;
    match shape.split_first() {
        None => Err(LoadError::new(format!(
            "output {name:?} is a single value without a batch axis; axis 0 must be the batch"
        ))),
        Some((batch, _)) if *batch != rows => Err(LoadError::new(format!(
            "axis 0 of output {name:?} is {batch} for a batch of {rows} rows; it must be the batch"
        ))),
        Some((_, row_shape)) => {
            let spec = TensorSpec {
                name: name.clone(),
                element: declared,
                row_shape: row_shape.to_vec(),
                classes: classes.cloned(),
            };
            match classes {
                Some(classes) if row_shape.len() > 1 || classes.len() != spec.row_len() => {
                    Err(LoadError::new(format!(
                        "output {name:?} is a map of {} classes, computed from rows of the shape \
                         {row_shape:?}",
                        classes.len()
                    )))
                }
                _ => Ok(spec),
            }
        }
    }
}

/// Refuses outputs whose rows have another shape in a batch of another size.
pub(super) fn same_rows(at_plan: &[TensorSpec], at_other: &[TensorSpec]) -> Result<(), LoadError> {
    for (plan, other) in at_plan.iter().zip(at_other) {
        if plan.row_shape != other.row_shape {
            let mut pairs = plan.row_shape.iter().zip(&other.row_shape);
            let axis = pairs.position(|(a, b)| a != b).unwrap_or_default() + 1;
            return Err(LoadError::new(format!(
                "axis {axis} of output {:?} changes with the batch; only axis 0 may",
                plan.name
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, shape: &[Option<usize>]) -> OnnxValue {
        let dim = |length: &Option<usize>| length.map_or(OnnxDim::Unknown, OnnxDim::Fixed);
        OnnxValue {
            name: name.to_owned(),
            element: Some("float".to_owned()),
            shape: Some(shape.iter().map(dim).collect()),
        }
    }

    #[test]
    fn the_batch_is_fixed_for_all_inputs_or_for_none() {
        let rows = |values: &[OnnxValue]| inputs(values, &Maps::default()).map(|(_, rows)| rows);
        let (any, four) = (value("a", &[None, Some(2)]), value("b", &[Some(4)]));
        assert_eq!(rows(&[any.clone(), any.clone()]), Ok(None));
        assert_eq!(rows(&[four.clone(), four.clone()]), Ok(Some(4)));
        assert_eq!(
            rows(&[any.clone(), four]).unwrap_err().to_string(),
            "axis 0 is the batch, but it is any length in input \"a\" and 4 in input \"b\""
        );
        assert_eq!(
            rows(&[]).unwrap_err().to_string(),
            "the model has no inputs"
        );
        let mut shapeless = any;
        shapeless.shape = None;
        let error = rows(&[shapeless]).unwrap_err().to_string();
        assert!(error.contains("declares no shape"), "{error}");
    }

    #[test]
    fn a_size_that_overflows_is_over_the_limit() {
        let (specs, _) = inputs(
            &[value("a", &[None, Some(usize::MAX), Some(3)])],
            &Maps::default(),
        )
        .unwrap();
        check_size(&specs, 32, &LoadLimits::default()).unwrap_err();
        let (specs, _) = inputs(&[value("a", &[None, Some(3)])], &Maps::default()).unwrap();
        check_size(&specs, 32, &LoadLimits::default()).unwrap();
    }

    #[test]
    fn outputs_follow_the_batch_in_their_declared_type() {
        let declared = [value("y", &[None, Some(2)])];
        let check = |element, shape: &[Option<usize>]| {
            let computed = Computed {
                element,
                shape: shape.to_vec(),
            };
            outputs(&declared, &Maps::default(), &[computed], 32).map_err(|error| error.to_string())
        };
        let float = Some(ElementType::Float);
        let specs = check(float, &[Some(32), Some(2)]).unwrap();
        assert_eq!(specs[0].row_shape, [2]);
        let refused = |element, shape: &[Option<usize>], part: &str| {
            let error = check(element, shape).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        refused(float, &[], "without a batch axis");
        refused(float, &[Some(1), Some(2)], "is 1 for a batch of 32");
        refused(
            float,
            &[Some(32), None],
            "axis 1 of output \"y\" depends on the data",
        );
        refused(Some(ElementType::Double), &[Some(32)], "computes double");
        refused(None, &[Some(32)], "computes another type");
    }
}
