// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/llm_onnx.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/half.h"
#include "narrow/core/parallel.h"
#include "narrow/core/suggest.h"
#include "narrow/core/version.h"
#include "narrow/evaluate/bench.h"
#include "narrow/formats/gguf/types.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/graph/op_table.h"
#include "narrow/llm/architectures/build.h"
#include "narrow/llm/checkpoint.h"
#include "narrow/llm/hf_files.h"
#include "narrow/pipeline/llm_float.h"
#include "narrow/pipeline/weight_totals.h"
#include "narrow/ptq/assign.h"
#include "narrow/ptq/plan.h"
#include "narrow/ptq/rtn/rtn.h"
#include "narrow/ptq/tables/tables.h"
#include "narrow/ptq/targets.h"
#include "narrow/quant/error_measures.h"

namespace narrow {
namespace {

constexpr OnnxWeightFormat kFormats[] = {
    {"w4g32", "weights int4 in groups of 32", Mode::weight_only, 4, 32},
    {"w4g64", "weights int4 in groups of 64", Mode::weight_only, 4, 64},
    {"w4g128", "weights int4 in groups of 128", Mode::weight_only, 4, 128},
    {"w4g256", "weights int4 in groups of 256", Mode::weight_only, 4, 256},
    {"w8g32", "weights int8 in groups of 32", Mode::weight_only, 8, 32},
    {"w8g64", "weights int8 in groups of 64", Mode::weight_only, 8, 64},
    {"w8g128", "weights int8 in groups of 128", Mode::weight_only, 8, 128},
    {"w8g256", "weights int8 in groups of 256", Mode::weight_only, 8, 256},
    {"w8", "weights int8, a scale for each output channel", Mode::weight_only, 8, 0},
    {"w8a8", "weights int8, activations uint8 at run time", Mode::dynamic, 8, 0},
};

Tensor transposed(const Tensor& x) {
  const int64_t rows = x.dim(0);
  const int64_t columns = x.dim(1);
  Tensor out(DType::float32, {columns, rows});
  const float* from = x.data<float>().data();
  float* to = out.mutable_data<float>().data();
  constexpr int64_t kTile = 64;  // of columns: what is written stays in the cache
  parallel_for(columns, kTile, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = begin; c < end; ++c) to[c * rows + r] = from[r * columns + c];
    }
  });
  return out;
}

class LlmOnnxWriter {
 public:
  explicit LlmOnnxWriter(const LlmOnnxJob& job)
      : job_(job),
        threads_(job.threads),
        format_(find_onnx_weight_format(job.format)),
        model_(job.weights ? *job.weights : llm::Checkpoint::open(job.model)) {}

  WeightsReport run();

 private:
  /// A placeholder of the graph: the tensor that it stands for, and how it lies in the file.
  struct Weight {
    std::string value;
    const llm::CheckpointTensor* tensor;
    bool columns;  // [in, out]
  };

  void check_source() const;
  void build();
  void find_weights();
  QuantizeOptions options() const;
  bool keeps_float(const std::string& tensor) const;
  Tensor read(const Weight& w) const;
  void quantize();
  void round_layer(const Weight& w, const Scheme& scheme, QuantizedTensor& out);
  void fill(const Weight& w);
  void quantize_rows(const Weight& w);
  void note(const Weight& w, const std::string& type, double bits, uint64_t bytes,
            const ErrorMeasures* error, std::string reason = {});
  void note_vectors();
  void add_metadata();
  void step(const Weight& w);

  const LlmOnnxJob& job_;
  ThreadLimit threads_;
  const OnnxWeightFormat* format_;
  llm::Checkpoint model_;
  Graph graph_;
  std::vector<Weight> weights_;
  WeightTotals totals_;
  int64_t done_ = 0;
  int64_t all_ = 0;
};

void LlmOnnxWriter::build() {
  llm::GraphOptions options;
  options.form = llm::GraphForm::onnx;
  // A table in float serves the output too; quantized, rows and columns have grids of their own.
  options.tied_table = format_ == nullptr;
  graph_ = llm::build_graph(model_, options);
  infer_shapes(graph_);
  find_weights();
}

void LlmOnnxWriter::find_weights() {
  for (const ValueId id : graph_.live_values()) {
    const Value& value = graph_.value(id);
    if (!value.is_constant()) continue;
    std::string name = value.name;
    const bool columns = name.ends_with(llm::kColumns);
    if (columns) name.resize(name.size() - llm::kColumns.size());
    const llm::CheckpointTensor* tensor = model_.find(name);
    if (tensor == nullptr || tensor->dims.size() != 2) continue;
    weights_.push_back({value.name, tensor, columns});
    all_ += tensor->rows() * tensor->columns();
  }
}

bool LlmOnnxWriter::keeps_float(const std::string& tensor) const {
  return std::any_of(job_.keep_float.begin(), job_.keep_float.end(),
                     [&](const std::string& glob) { return glob_match(glob, tensor); });
}

/// The recipe of the products. The output matrix, where errors are not averaged any more, has 8
/// bits at least.
QuantizeOptions LlmOnnxWriter::options() const {
  QuantizeOptions o;
  o.mode = format_->mode;
  o.weights = NumberType{false, true, format_->bits};
  o.group_size = format_->group_size;
  o.target = "ort";
  for (const Weight& w : weights_) {
    if (!w.columns) continue;
    const std::vector<Use>& uses = graph_.value(*graph_.find_value(w.value)).uses;
    for (const Use& use : uses) {
      const std::string& node = graph_.node(use.node).name;
      if (keeps_float(w.tensor->name)) o.keep_float.push_back(node);
      if (format_->bits < 8 && node.starts_with("logits")) {
        LayerRule rule;
        rule.match = node;
        rule.weights = NumberType{};
        o.layers.push_back(rule);
      }
    }
  }
  return resolve(o);
}

/// float32, as the graph has it.
Tensor LlmOnnxWriter::read(const Weight& w) const {
  const Tensor rows = model_.read(w.tensor->name, llm::RowOrder::stored);
  return w.columns ? transposed(rows) : rows;
}

void LlmOnnxWriter::step(const Weight& w) {
  done_ += w.tensor->rows() * w.tensor->columns();
  job_.progress.report(format_ != nullptr ? "quantize" : "convert", done_, all_);
}

void LlmOnnxWriter::note(const Weight& w, const std::string& type, double bits, uint64_t bytes,
                         const ErrorMeasures* error, std::string reason) {
  WeightReport r;
  r.name = w.tensor->name;
  r.dims = w.tensor->dims;
  r.source_type = gguf_type(w.tensor->type).name;
  r.type = type;
  r.bytes = bytes;
  r.reason = std::move(reason);
  WeightErrors errors;
  if (error != nullptr && error->mse() > 0) {
    errors.errors = error->mse() * static_cast<double>(error->count());
    errors.squares = errors.errors * std::pow(10.0, error->sqnr_db() / 10);
    errors.rounded = true;
  }
  totals_.add(std::move(r), bits, errors);
}

void LlmOnnxWriter::check_source() const {
  if (format_ == nullptr || job_.requantize) return;
  for (const llm::CheckpointTensor& t : model_.tensors()) {
    if (codec(t.type).block_values == 1) continue;
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}' is quantized already ({})", t.name, gguf_type(t.type).name),
                "start from the float model, or add --requantize and accept both errors");
  }
}

/// The grid of a matrix of Q4_0 or Q8_0 blocks where it is one of this scheme, [in, out]: codes of
/// these scales are those of the blocks. Not where a scale is none that QuantizeLinear takes, or
/// the blocks of a larger group differ in theirs.
std::optional<QuantParams> grid_of_blocks(const llm::Checkpoint& model,
                                          const llm::CheckpointTensor& t, const Scheme& scheme) {
  constexpr int64_t kBlock = 32;
  const BlockType type = scheme.bits == 4 ? BlockType::q4_0 : BlockType::q8_0;
  const bool fits =
      (scheme.bits == 4 || scheme.bits == 8) && t.type == type &&
      scheme.granularity == Granularity::per_group && scheme.axis == 0 && scheme.group_size > 0 &&
      scheme.group_size % kBlock == 0 && t.columns() % scheme.group_size == 0 &&
      scheme.symmetry == Symmetry::symmetric && scheme.is_signed && !scheme.narrow_range;
  if (!fits) return std::nullopt;
  const Tensor raw = model.raw(t.name);
  const int64_t blocks = t.columns() / kBlock;
  const int64_t of_group = scheme.group_size / kBlock;
  QuantParams params;
  params.scheme = scheme;
  params.scale = Tensor(DType::float32, {blocks / of_group, t.rows()});
  float* scales = params.scale.mutable_data<float>().data();
  for (int64_t row = 0; row < t.rows(); ++row) {
    for (int64_t block = 0; block < blocks; ++block) {
      Half half;
      std::memcpy(&half, raw.raw() + (row * blocks + block) * codec(type).block_bytes, sizeof half);
      const float scale = to_float(half);
      if (!(scale > 0) || !std::isfinite(scale)) return std::nullopt;
      float& of_its_group = scales[block / of_group * t.rows() + row];
      if (block % of_group == 0) of_its_group = scale;
      if (of_its_group != scale) return std::nullopt;
    }
  }
  return params;
}

void LlmOnnxWriter::round_layer(const Weight& w, const Scheme& scheme, QuantizedTensor& out) {
  const Tensor x = read(w);
  const auto same = w.columns ? grid_of_blocks(model_, *w.tensor, scheme) : std::nullopt;
  try {
    if (same) {
      out.params = *same;
      out.codes = narrow::quantize(x, out.params);
    } else if (job_.method == WeightMethod::rtn) {
      out.params = minmax_params(x, scheme);
      out.codes = narrow::quantize(x, out.params);
    } else {
      out = round_weights(x, scheme);
    }
  } catch (Error& e) {
    e.add_context(fmt::format("tensor '{}'", w.tensor->name));
    throw;
  }
  const ErrorMeasures error = measure_error(x, dequantize(out.codes, out.params));
  const std::string groups =
      scheme.group_size > 0 ? fmt::format(" g{}", scheme.group_size) : std::string();
  const bool wider = scheme.bits > format_->bits;
  note(w, fmt::format("INT{}{}", scheme.bits, groups), scheme.bits,
       out.codes.bytes() + out.params.scale.bytes(), &error,
       wider ? "the output matrix has 8 bits" : "");
}

/// Float, in the type that the format gives; a Cast stands behind 16 bits.
void LlmOnnxWriter::fill(const Weight& w) {
  const ValueId id = *graph_.find_value(w.value);
  Tensor x = read(w);
  const DType dtype = format_ != nullptr ? DType::float32 : float_type(job_.format, w.tensor->type);
  std::string reason;
  if (format_ != nullptr) {
    reason = keeps_float(w.tensor->name) ? "keep_float names it" : "a small table";
  }
  note(w, float_type_name(dtype), bits(dtype), packed_bytes(dtype, x.elements()), nullptr, reason);
  if (dtype == DType::float32) {
    graph_.set_constant(id, std::move(x));
    return;
  }
  const ValueId narrow =
      graph_.add_initializer(w.value + (dtype == DType::float16 ? ".f16" : ".bf16"),
                             Tensor::from_floats(x.data<float>(), dtype, x.dims()));
  const NodeId cast = graph_.add_node("Cast", {narrow}, {w.value + ".f32"}, {{"to", int64_t{1}}});
  graph_.replace_uses(id, graph_.node(cast).outputs[0]);
}

void LlmOnnxWriter::quantize_rows(const Weight& w) {
  const QuantizedTable table = quantize_table(graph_, w.value, read(w));
  note(w, "INT8 rows", 8, table.bytes, &table.error);
}

void LlmOnnxWriter::quantize() {
  const QuantizeOptions resolved = options();
  const Assignment assignment = assign(graph_, resolved);
  std::map<std::string, const AssignedLayer*> layers;
  for (const AssignedLayer& layer : assignment.layers) layers[layer.weights] = &layer;
  QuantizationPlan plan;
  std::vector<const Weight*> floats;
  std::vector<const Weight*> tables;
  for (const Weight& w : weights_) {
    const auto layer = layers.find(w.value);
    if (layer != layers.end() && layer->second->weight_scheme) {
      round_layer(w, *layer->second->weight_scheme, plan.qdq.weights[w.value]);
      step(w);
    } else if (w.tensor->name == "token_embd.weight" && !w.columns &&
               !keeps_float(w.tensor->name)) {
      tables.push_back(&w);
    } else {
      floats.push_back(&w);
    }
  }
  apply_plan(graph_, assignment, plan);
  for (const Weight* w : tables) {
    quantize_rows(*w);
    step(*w);
  }
  for (const Weight* w : floats) {
    fill(*w);
    step(*w);
  }
  for (const std::string& text : assignment.notes) totals_.report.notes.push_back(text);
}

/// Norms and biases, which stay float32.
void LlmOnnxWriter::note_vectors() {
  for (const llm::CheckpointTensor& t : model_.tensors()) {
    if (t.dims.size() != 1 || t.difference == llm::Difference::computed) continue;
    const Weight w{t.name, &t, false};
    note(w, "F32", 32, sizeof(float) * static_cast<uint64_t>(t.columns()), nullptr);
  }
}

void LlmOnnxWriter::add_metadata() {
  graph_.metadata["narrow.version"] = kVersion;
  graph_.metadata["narrow.format"] = format_ != nullptr ? format_->name : job_.format;
  if (format_ != nullptr) graph_.metadata["narrow.method"] = to_string(job_.method);
  try {
    const auto files = llm::hf_files(model_, "float32");
    for (const llm::HfFile& file : llm::hf_file_table()) {
      const auto found = files.find(file.name);
      if (found == files.end() || file.older_form) continue;
      graph_.metadata[std::string(llm::kHfPrefix) + file.name] = found->second;
    }
  } catch (const Error& e) {
    if (e.code() != ErrorCode::unsupported) throw;
    // The graph computes the same without them.
    totals_.report.notes.push_back("config and tokenizer are not in the file: " + e.message());
  }
}

WeightsReport LlmOnnxWriter::run() {
  const auto start = Clock::now();
  check_source();
  build();
  if (format_ != nullptr) {
    quantize();
  } else {
    for (const Weight& w : weights_) {
      fill(w);
      step(w);
    }
  }
  note_vectors();
  add_metadata();
  graph_.sort();
  graph_.remove_dead();
  infer_shapes(graph_);
  OnnxWriteOptions options;
  options.opset = job_.opset;
  const OnnxWriteReport written = write_onnx(graph_, job_.output, options);
  WeightsReport report = totals_.finish();
  report.model = job_.model.string();
  report.output = job_.output.string();
  report.architecture = model_.config().architecture;
  report.format = job_.format.empty() ? "as it is" : job_.format;
  if (format_ != nullptr) report.method = to_string(job_.method);
  for (const llm::CheckpointTensor& t : model_.tensors()) report.source_bytes += t.bytes();
  report.output_bytes = written.bytes + written.external_bytes;
  report.notes.push_back(fmt::format("opset {}", written.opset));
  report.stages = {{format_ != nullptr ? "quantize" : "convert", seconds_since(start)}};
  report.peak_rss_bytes = peak_rss_bytes();
  return report;
}

void check_job(const LlmOnnxJob& job) {
  const bool is_float = job.format.empty() || is_float_format(job.format);
  const OnnxWeightFormat* format = find_onnx_weight_format(job.format);
  std::vector<std::string> names{"f32", "f16", "bf16"};
  for (const OnnxWeightFormat& f : kFormats) names.emplace_back(f.name);
  if (!is_float && format == nullptr) {
    const bool gguf = find_file_format(job.format) != nullptr;
    throw Error(ErrorCode::invalid_argument,
                gguf ? fmt::format("{} is a format of GGUF files, not of ONNX", job.format)
                     : fmt::format("'{}' is no format of ONNX files", job.format),
                fmt::format("into an .onnx file go {}", fmt::join(names, ", ")));
  }
  if (job.method == WeightMethod::importance) {
    throw Error(ErrorCode::invalid_argument, "method importance writes GGUF files alone",
                "choose rtn or mse");
  }
}

}  // namespace

std::span<const OnnxWeightFormat> onnx_weight_formats() {
  return kFormats;
}

const OnnxWeightFormat* find_onnx_weight_format(std::string_view name) {
  for (const OnnxWeightFormat& f : kFormats) {
    if (name == f.name) return &f;
  }
  return nullptr;
}

WeightsReport run_llm_onnx(const LlmOnnxJob& job) {
  check_job(job);
  try {
    return LlmOnnxWriter(job).run();
  } catch (Error& e) {
    if (e.code() != ErrorCode::cancelled) e.add_context(job.model.string());
    throw;
  }
}

}  // namespace narrow
