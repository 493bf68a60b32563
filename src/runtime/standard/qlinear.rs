//! `QLinearMatMul` in exact integer arithmetic, scaled at the end. tract's saturates where an
//! int8 result should not.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{
    DatumType, SpecialOps, TVec, TractResult, TypedFact, TypedModel, tensor0,
};
use tract_onnx::tract_core::ops::cast::{cast, wire_cast};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_hir::internal::{
    AxesMapping, AxisOp, Expansion, InferenceOp, InferenceResult, OutletId, Solver, StaticName,
    TensorProxy, ToDim, anyhow, check_input_arity, check_output_arity, expand,
    wire_with_rank_broadcast,
};
use tract_onnx::tract_hir::ops::binary::wire_rank_broadcast;

/// The builder of the operator.
#[expect(clippy::unnecessary_wraps, reason = "the type of all builders")]
pub(super) fn build(
    _context: &ParsingContext<'_>,
    _node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    Ok((expand(QLinearMatMul), vec![]))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct QLinearMatMul;

impl Expansion for QLinearMatMul {
    fn name(&self) -> StaticName {
        "QLinearMatMul".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 8)?;
        check_output_arity(outputs, 1)?;
        let [a, _, a_zero, b, _, b_zero, _, y_zero] = inputs else {
            return Err(anyhow!("QLinearMatMul takes 8 inputs"));
        };
        let [y] = outputs else {
            return Err(anyhow!("QLinearMatMul has one output"));
        };
        s.equals(&a.datum_type, &a_zero.datum_type)?;
        s.equals(&b.datum_type, &b_zero.datum_type)?;
        s.equals(&y.datum_type, &y_zero.datum_type)?;
        s.given_2(&a.shape, &b.shape, move |s, a, b| {
            let (_, _, _, shape) =
                tract_onnx::tract_hir::ops::matmul::compute_shapes(a, b, false, false, false)?;
            s.equals(&y.shape, shape)
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let &[a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero] = inputs else {
            return Err(anyhow!("QLinearMatMul takes 8 inputs"));
        };
        let mut wire = Wire { prefix, model };
        let a_zero = wire.by_rows(a_zero, "a_zero")?;
        let a_scale = wire.by_rows(a_scale, "a_scale")?;
        let a = wire.centred(a, a_zero, "a")?;
        let b = wire.centred(b, b_zero, "b")?;
        let product = wire.product(a, b)?;
        let product = wire.to(product, DatumType::F32, "product_f32")?;
        let [a_scale, b_scale, y_scale] = [
            wire.to(a_scale, DatumType::F32, "a_scale_f32")?,
            wire.to(b_scale, DatumType::F32, "b_scale_f32")?,
            wire.to(y_scale, DatumType::F32, "y_scale_f32")?,
        ];
        let scale = wire.two("scale", math::mul(), a_scale, b_scale)?;
        let scale = wire.two("rescale", math::div(), scale, y_scale)?;
        let scaled = wire.two("scaled", math::mul(), product, scale)?;
        let name = wire.name("rounded");
        let rounded = one(&wire
            .model
            .wire_node(name, math::round_half_to_even(), &[scaled])?)?;
        let to = wire.model.outlet_fact(y_zero)?.datum_type;
        let y_zero = wire.to(y_zero, DatumType::F32, "y_zero_f32")?;
        let shifted = wire.two("shifted", math::add(), rounded, y_zero)?;
        let (least, most) = match to.unquantized() {
            DatumType::I8 => (-128f32, 127f32),
            DatumType::U8 => (0.0, 255.0),
            other => return Err(anyhow!("QLinearMatMul into {other:?} is not supported")),
        };
        let least = wire.constant("least", least)?;
        let most = wire.constant("most", most)?;
        let clipped = wire.two("clip_below", math::max(), shifted, least)?;
        let clipped = wire.two("clip_above", math::min(), clipped, most)?;
        wire.model.wire_node(prefix, cast(to), &[clipped])
    }
}

/// Adds nodes to a model.
struct Wire<'a> {
    prefix: &'a str,
    model: &'a mut TypedModel,
}

impl Wire<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn to(&mut self, from: OutletId, to: DatumType, name: &str) -> TractResult<OutletId> {
        let name = self.name(name);
        one(&wire_cast(name, self.model, &[from], to)?)
    }

    fn two(
        &mut self,
        name: &str,
        op: impl Into<Box<dyn tract_onnx::tract_core::internal::TypedOp>>,
        a: OutletId,
        b: OutletId,
    ) -> TractResult<OutletId> {
        let name = self.name(name);
        one(&wire_with_rank_broadcast(name, self.model, op, &[a, b])?)
    }

    fn constant(&mut self, name: &str, value: f32) -> TractResult<OutletId> {
        let name = self.name(name);
        self.model.add_const(name, tensor0(value))
    }

    /// One value a row of the first operand becomes a column.
    fn by_rows(&mut self, outlet: OutletId, name: &str) -> TractResult<OutletId> {
        let fact = self.model.outlet_fact(outlet)?;
        if fact.rank() != 1 || fact.shape.volume() == 1.to_dim() {
            return Ok(outlet);
        }
        let name = self.name(&format!("{name}_column"));
        one(&self.model.wire_node(name, AxisOp::Add(1), &[outlet])?)
    }

    /// The operand less its zero point, as i32.
    fn centred(&mut self, outlet: OutletId, zero: OutletId, name: &str) -> TractResult<OutletId> {
        let outlet = self.to(outlet, DatumType::I32, &format!("{name}_i32"))?;
        let zero = self.to(zero, DatumType::I32, &format!("{name}_zero_i32"))?;
        self.two(&format!("{name}_centred"), math::sub(), outlet, zero)
    }

    fn product(&mut self, a: OutletId, b: OutletId) -> TractResult<OutletId> {
        let operands = wire_rank_broadcast(self.name("ranks"), self.model, &[a, b])?;
        let ranks = [a, b].map(|o| self.model.outlet_fact(o).map(TypedFact::rank));
        for rank in ranks {
            if rank? < 2 {
                return Err(anyhow!("QLinearMatMul of a vector is not supported"));
            }
        }
        let rank = self
            .model
            .outlet_fact(one(operands.get(..1).unwrap_or(&[]))?)?
            .rank();
        let batch: String = ('a'..='h').take(rank - 2).collect();
        let axes: AxesMapping = format!("{batch}mk,{batch}kn->{batch}mn").parse()?;
        let name = self.name("product");
        one(&self
            .model
            .wire_node(name, EinSum::new(axes, DatumType::I32), &operands)?)
    }
}

fn one(outlets: &[OutletId]) -> TractResult<OutletId> {
    match outlets {
        [outlet] => Ok(*outlet),
        _ => Err(anyhow!(
            "one output was expected, there are {}",
            outlets.len()
        )),
    }
}
