// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/targets.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"

namespace narrow {
namespace {

constexpr const char* kAllIntegers =
    "int8,uint8,int7,uint7,int6,uint6,int5,uint5,int4,uint4,int3,uint3,int2,uint2";
constexpr const char* kAllActivations =
    "uint8,int8,uint16,int16,uint7,int7,uint6,int6,uint5,int5,uint4,int4,uint3,int3,uint2,int2";

// The operators that each program runs on integers, from its own documentation: onnxruntime's
// quantization registry, TensorRT's explicit quantization, CMSIS-NN's kernels.
constexpr const char* kCmsisOperators =
    "Conv,Gemm,MatMul,Add,Mul,Relu,Clip,MaxPool,AveragePool,GlobalAveragePool,ReduceMean,Reshape,"
    "Flatten,Transpose,Squeeze,Unsqueeze,Concat,Pad,Identity";
constexpr const char* kTensorRtOperators =
    "Conv,ConvTranspose,Gemm,MatMul,Add,Relu,Clip,MaxPool,AveragePool,GlobalAveragePool,Reshape,"
    "Flatten,Transpose,Squeeze,Unsqueeze,Concat,Resize,Identity";

constexpr TargetProfile kTargets[] = {
    {.name = "narrow",
     .summary = "narrow's own runtime; last layers give float results",
     .default_activations = "uint8",
     .activations = kAllActivations,
     .weights = kAllIntegers,
     .weight_only_weights = kAllIntegers,
     .symmetric_activations = false,
     .symmetric_weights = false,
     .per_axis = true,
     .dynamic_zero_points = true,
     .short_groups = true,
     .qoperator = true,
     .bias = BiasForm::int32,
     .quantize_outputs = false,
     .integer_throughout = false,
     .equal_concat = false,
     .max_opset = 25,
     .operators = ""},
    {.name = "ort",
     .summary = "ONNX Runtime on CPU: integer kernels need quantized results too",
     .default_activations = "uint8",
     .activations = "uint8,int8,uint16,int16",
     .weights = "int8,uint8",
     .weight_only_weights = "int8,uint8,int4,uint4",
     .symmetric_activations = false,
     .symmetric_weights = false,
     .per_axis = true,
     .dynamic_zero_points = false,
     .short_groups = true,
     .qoperator = true,
     .bias = BiasForm::int32,
     .quantize_outputs = true,
     .integer_throughout = false,
     .equal_concat = false,
     .max_opset = 21,
     .operators = ""},
    {.name = "openvino",
     .summary = "OpenVINO on CPU and GPU",
     .default_activations = "uint8",
     .activations = "uint8",  // on int8 version 2026.4 gives wrong results
     .weights = "int8",
     .weight_only_weights = "int8,uint8,int4,uint4",
     .symmetric_activations = false,
     .symmetric_weights = true,
     .per_axis = true,
     .dynamic_zero_points = false,
     .short_groups = false,
     .qoperator = false,
     .bias = BiasForm::float32,
     .quantize_outputs = false,
     .integer_throughout = false,
     .equal_concat = true,
     .max_opset = 21,
     .operators = ""},
    {.name = "tensorrt",
     .summary = "TensorRT: signed, symmetric, float bias",
     .default_activations = "int8",
     .activations = "int8",
     .weights = "int8",
     .weight_only_weights = "int4",
     .symmetric_activations = true,
     .symmetric_weights = true,
     .per_axis = true,
     .dynamic_zero_points = false,
     .short_groups = false,
     .qoperator = false,
     .bias = BiasForm::float32,
     .quantize_outputs = false,
     .integer_throughout = false,
     .equal_concat = true,
     .max_opset = 21,
     .operators = kTensorRtOperators},
    {.name = "cmsis",
     .summary = "CMSIS-NN on Cortex-M: signed codes, integer from input to output",
     .default_activations = "int8",
     .activations = "int8",
     .weights = "int8,int4",
     .weight_only_weights = "",
     .symmetric_activations = false,
     .symmetric_weights = true,
     .per_axis = true,
     .dynamic_zero_points = false,
     .short_groups = true,
     .qoperator = true,
     .bias = BiasForm::int32,
     .quantize_outputs = true,
     .integer_throughout = true,
     .equal_concat = true,
     .max_opset = 25,
     .operators = kCmsisOperators},
};

[[noreturn]] void refuse(std::string message, std::string hint = {}) {
  throw Error(ErrorCode::invalid_argument, std::move(message), std::move(hint));
}

bool lists(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (list.substr(0, comma) == word) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

void check_type(const char* key, const NumberType& type, std::string_view accepted,
                const TargetProfile& target, Mode mode) {
  if (lists(accepted, type.text())) return;
  if (accepted.empty()) {
    refuse(fmt::format("target {} has no {} mode", target.name, to_string(mode)));
  }
  refuse(fmt::format("{} {} does not fit target {} in {} mode", key, type.text(), target.name,
                     to_string(mode)),
         fmt::format("it takes {}", accepted));
}

void resolve_weights(QuantizeOptions& o, const TargetProfile& target) {
  if (!o.weights) {
    o.weights = o.mode == Mode::weight_only && target.weight_only_weights == std::string("int4")
                    ? NumberType{false, true, 4}
                    : NumberType{};
  }
  const bool half = o.weights->floating && o.weights->bits == 16;
  if (half && o.mode != Mode::weight_only) {
    refuse(fmt::format("weights float16 need mode weight_only, not {}", to_string(o.mode)),
           "give --mode weight_only");
  }
  if (o.weights->floating && !half && o.mode != Mode::static_) {
    refuse(fmt::format("weights float32 leave nothing to quantize in mode {}", to_string(o.mode)),
           "float32 weights with quantized activations are mode static");
  }
  if (o.weights->floating) return;
  if (o.weights->bits > 8) {
    refuse(fmt::format("weights {} are not supported", o.weights->text()), "use 2 to 8 bits");
  }
  check_type("weights", *o.weights,
             o.mode == Mode::weight_only ? target.weight_only_weights : target.weights, target,
             o.mode);
}

void resolve_activations(QuantizeOptions& o, const TargetProfile& target) {
  const NumberType float32{true, true, 32};
  if (o.mode == Mode::weight_only) {
    if (o.activations && *o.activations != float32) {
      refuse(fmt::format("activations {} contradict mode weight_only", o.activations->text()),
             "leave activations out, or choose mode static or dynamic");
    }
    o.activations = float32;
    return;
  }
  if (!o.activations) {
    o.activations = o.mode == Mode::dynamic ? number_type_from_string("uint8")
                                            : number_type_from_string(target.default_activations);
  }
  if (*o.activations == float32) {
    refuse(fmt::format("activations float32 contradict mode {}", to_string(o.mode)),
           "give --mode weight_only");
  }
  if (o.mode == Mode::dynamic && o.activations->text() != "uint8") {
    refuse(fmt::format("activations {} are not possible in mode dynamic", o.activations->text()),
           "DynamicQuantizeLinear gives uint8");
  }
  if (o.mode == Mode::dynamic && !lists(target.activations, "uint8")) {
    refuse(fmt::format("target {} has no dynamic mode", target.name),
           "DynamicQuantizeLinear gives uint8; choose mode static");
  }
  check_type("activations", *o.activations, target.activations, target, o.mode);
}

void check_symmetry(const QuantizeOptions& o, const TargetProfile& target) {
  if (target.symmetric_activations && *o.activation_symmetry != Symmetry::symmetric) {
    refuse(fmt::format("target {} needs activation_symmetry symmetric", target.name));
  }
  // Weight-only grids are plain DequantizeLinear, which every target gives a zero_point.
  if (target.symmetric_weights && o.mode != Mode::weight_only &&
      *o.weight_symmetry != Symmetry::symmetric) {
    refuse(fmt::format("target {} needs weight_symmetry symmetric", target.name));
  }
}

void resolve_symmetry(QuantizeOptions& o, const TargetProfile& target) {
  if (!o.activation_symmetry) {
    o.activation_symmetry =
        target.symmetric_activations ? Symmetry::symmetric : Symmetry::asymmetric;
  }
  if (!o.weight_symmetry) {
    const bool symmetric = target.symmetric_weights || o.weights->is_signed;
    o.weight_symmetry = symmetric ? Symmetry::symmetric : Symmetry::asymmetric;
  }
  if (*o.activation_symmetry == Symmetry::offset || *o.weight_symmetry == Symmetry::offset) {
    refuse("symmetry offset cannot be written as QuantizeLinear", "choose symmetric or asymmetric");
  }
  check_symmetry(o, target);
}

void resolve_granularity(QuantizeOptions& o, const TargetProfile& target) {
  constexpr int64_t kLargestGroup = int64_t{1} << 24;  // beyond any layer's reduction axis
  if (o.group_size < 0 || o.group_size > kLargestGroup) {
    refuse(fmt::format("group_size {} is not possible", o.group_size), "give 16, 32, 64, 128, ...");
  }
  const bool zero_points = o.weight_symmetry != Symmetry::symmetric && !o.weights->floating;
  const bool one_zero_point = o.mode == Mode::dynamic && zero_points && !target.dynamic_zero_points;
  if (!o.granularity) {
    const bool per_axis = target.per_axis && !one_zero_point;
    o.granularity = o.group_size > 0 ? Granularity::per_group
                                     : (per_axis ? Granularity::per_axis : Granularity::per_tensor);
  }
  switch (*o.granularity) {
    case Granularity::per_token:
      refuse("granularity per_token is not one of weights",
             "choose per_tensor, per_axis or per_group");
    case Granularity::per_group:
      if (o.group_size == 0) refuse("granularity per_group needs a group_size");
      if (o.mode != Mode::weight_only) {
        refuse(fmt::format("groups of weights are not possible in mode {}", to_string(o.mode)),
               "integer products have one scale per output channel: give --mode weight_only");
      }
      break;
    case Granularity::per_axis:
      if (!target.per_axis) refuse(fmt::format("target {} has no per_axis scales", target.name));
      if (one_zero_point) {
        refuse(fmt::format("target {} takes one zero_point for all channels in mode dynamic",
                           target.name),
               "give --weight-symmetry symmetric or --granularity per_tensor");
      }
      [[fallthrough]];
    case Granularity::per_tensor:
      if (o.group_size != 0) {
        refuse(fmt::format("group_size contradicts granularity {}", to_string(*o.granularity)));
      }
      break;
  }
}

}  // namespace

std::span<const TargetProfile> all_targets() {
  return kTargets;
}

const TargetProfile& find_target(std::string_view name) {
  std::vector<std::string> names;
  for (const TargetProfile& target : kTargets) {
    if (name == target.name) return target;
    names.emplace_back(target.name);
  }
  refuse(fmt::format("unknown target '{}'", name), did_you_mean(name, names));
}

bool runs_quantized(const TargetProfile& target, std::string_view op) {
  return *target.operators == '\0' || lists(target.operators, op);
}

void check_layer_types(const QuantizeOptions& layer) {
  QuantizeOptions o = layer;
  const TargetProfile& target = find_target(o.target);
  if (o.activations->floating) o.mode = Mode::weight_only;
  if (!o.activations->floating) {
    check_type("activations", *o.activations, target.activations, target, o.mode);
  }
  if (!o.weights->floating) {
    const bool alone = o.mode == Mode::weight_only;
    check_type("weights", *o.weights, alone ? target.weight_only_weights : target.weights, target,
               o.mode);
  }
  check_symmetry(o, target);
}

QuantizeOptions resolve(const QuantizeOptions& options) {
  QuantizeOptions o = options;
  const TargetProfile& target = find_target(o.target);
  resolve_weights(o, target);
  resolve_activations(o, target);
  resolve_symmetry(o, target);
  resolve_granularity(o, target);
  return o;
}

}  // namespace narrow
