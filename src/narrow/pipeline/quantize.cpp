// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <system_error>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/hash.h"
#include "narrow/core/version.h"
#include "narrow/evaluate/bench.h"
#include "narrow/evaluate/compare.h"
#include "narrow/evaluate/runner.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/graph/op_table.h"
#include "narrow/graph/pass.h"
#include "narrow/pipeline/calibrate.h"
#include "narrow/pipeline/candidate.h"
#include "narrow/pipeline/samples.h"
#include "narrow/pipeline/verify.h"
#include "narrow/ptq/equalize/equalize.h"
#include "narrow/ptq/rtn/rtn.h"
#include "narrow/ptq/targets.h"
#include "narrow/report/table.h"
#include "narrow/runtime/session.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kComparedSamples = 64;  // per-layer SQNR is stable to 0.2 dB from about 50 on

constexpr int64_t kMeanSamples = 128;  // means of features are known to a tenth of sigma

std::shared_ptr<const Dataset> first_samples(const std::shared_ptr<const Dataset>& data,
                                             int64_t count) {
  std::vector<int64_t> indices(static_cast<size_t>(std::min(count, data->size())));
  std::iota(indices.begin(), indices.end(), 0);
  return subset(data, indices);
}

/// A model that is removed unless it is renamed; its data file is removed in any case.
class TemporaryModel {
 public:
  explicit TemporaryModel(const fs::path& output) : path_(output) { path_ += ".unverified"; }
  ~TemporaryModel() {
    std::error_code ignored;
    if (!released_) fs::remove(path_, ignored);
    fs::remove(fs::path(path_) += ".data", ignored);
  }
  TemporaryModel(const TemporaryModel&) = delete;
  TemporaryModel& operator=(const TemporaryModel&) = delete;
  const fs::path& path() const { return path_; }
  void rename_to(const fs::path& final_path) {
    rename_path(path_, final_path);
    released_ = true;
  }

 private:
  fs::path path_;
  bool released_ = false;
};

uint64_t model_bytes(const fs::path& path, const Graph& graph) {
  uint64_t stored = 0;
  for (const ValueId id : graph.live_values()) {
    if (graph.value(id).is_constant()) stored += graph.value(id).constant.bytes();
  }
  // With external data the file itself is smaller than its tensors.
  return std::max<uint64_t>(fs::file_size(path), stored);
}

std::string fingerprint_of(const fs::path& path) {
  const auto file = MappedFile::open(path);
  Hash64 hash;
  hash.add(file->bytes().data(), file->bytes().size());
  return hash.hex();
}

class Quantizer {
 public:
  explicit Quantizer(const QuantizeJob& job) : job_(job), recipe_(job.recipe) {}

  QuantizeReport run() {
    prepare();
    measure_float();
    equalize_model();
    calibrate_model();
    measure_means();
    quantize_model();
    verify_model();
    check_integers();
    pass_gate();
    save();
    measure_latency();
    finish();
    return std::move(report_);
  }

 private:
  /// Runs one stage and books its time.
  template <class F>
  void stage(const char* name, F&& act) {
    job_.progress.check_cancelled();
    const auto start = std::chrono::steady_clock::now();
    act();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    report_.stages.push_back({name, seconds.count()});
  }

  void say(const std::string& line) const {
    if (job_.preflight) job_.preflight(line);
  }

  void prepare() {
    stage("read", [&] {
      validate(recipe_);
      options_ = resolved_options(recipe_);
      float_graph_ = read_onnx(job_.model);
      report_.model = job_.model.string();
      report_.float_bytes = model_bytes(job_.model, float_graph_);
      source_ = fingerprint_of(job_.model);
    });
    stage("clean up", [&] {
      PassOptions passes;
      passes.disabled = job_.disabled_passes;
      passes.context.evaluate = evaluate_constant;
      for (const PassReport& pass : optimize(float_graph_, passes)) {
        if (pass.changes > 0) report_.passes.push_back({pass.name, pass.changes});
      }
      infer_shapes(float_graph_);
    });
    stage("assign", [&] {
      Graph copy = float_graph_;
      assignment_ = assign(copy, options_);
      samples_ = open_samples(recipe_, float_graph_);
      report_.notes = samples_.notes;
      report_.data_fingerprint = samples_.data_fingerprint;
    });
    announce();
  }

  bool needs_statistics() const { return !assignment_.activations.empty(); }

  void announce() const {
    int64_t weights = 0;
    for (const AssignedLayer& layer : assignment_.layers) {
      const Tensor* w = constant_of(layer.weights);
      weights += w != nullptr ? w->elements() : 0;
    }
    say(fmt::format("{}: {}, {} layers to quantize, {} weights", job_.model.string(),
                    format_bytes(report_.float_bytes), assignment_.layers.size(),
                    format_count(weights)));
    say(fmt::format("{}: weights {} {}, activations {}, target {}", to_string(options_.mode),
                    options_.weights->text(), to_string(*options_.granularity),
                    options_.activations->text(), options_.target));
    if (needs_statistics() && samples_.calibration) {
      say(fmt::format("calibrate on {} of {} samples, observer {}",
                      format_count(samples_.calibration->size()), format_count(samples_.data_size),
                      to_string(recipe_.observer.kind)));
    }
    if (samples_.evaluation) {
      say(fmt::format("evaluate on {} samples of {}", format_count(samples_.evaluation->size()),
                      samples_.evaluation_name));
    }
    for (const KeptFloat& kept : assignment_.kept_float) {
      say(fmt::format("stays float: {} ({}): {}", kept.node, kept.op, kept.reason));
    }
  }

  const Tensor* constant_of(const std::string& name) const {
    const auto id = float_graph_.find_value(name);
    return id ? float_graph_.constant(*id) : nullptr;
  }

  void measure_float() {
    if (!samples_.evaluation) return;
    stage("float", [&] {
      verifier_ = std::make_unique<Verifier>(float_graph_, samples_, job_.threads, job_.progress);
      check_gate(recipe_, verifier_->baseline());
      report_.verification = verifier_->baseline();
    });
  }

  /// Everything after this quantizes `graph_`: the float model, or one of the same function whose
  /// channels are balanced.
  void equalize_model() {
    graph_ = float_graph_;
    if (!recipe_.equalize || options_.mode != Mode::static_ || !samples_.calibration) return;
    stage("equalize", [&] {
      separate_constants(graph_, options_);
      Graph copy = graph_;
      const Assignment assignment = assign(copy, options_);
      std::map<std::string, ChannelAxis> values;
      for (const std::string& name : equalizable_values(graph_, assignment)) {
        values[name] = channel_axis(graph_, name);
      }
      if (values.empty()) return;
      const auto moments =
          channel_moments(graph_, values, *first_samples(samples_.calibration, kMeanSamples),
                          {job_.threads, job_.progress});
      const auto changed = equalize(graph_, assignment, moments);
      if (changed.empty()) return;
      report_.notes.push_back(fmt::format("channels of {} values were equalized", changed.size()));
      Hash64 hash;
      for (const EqualizedValue& value : changed) {
        hash.add_text(fmt::format("{}:{}", value.value, value.power));
      }
      equalization_ = "+" + hash.hex();
    });
  }

  void calibrate_model() {
    if (!needs_statistics()) return;
    stage("calibrate", [&] {
      const bool saved = !job_.statistics.empty() && fs::exists(job_.statistics);
      if (saved) {
        load_saved_statistics();
      } else {
        observe_data();
      }
      report_.calibration_samples = knowledge_.statistics.samples;
      note_non_finite();
      if (!job_.save_statistics.empty())
        save_statistics(knowledge_.statistics, job_.save_statistics);
    });
  }

  void load_saved_statistics() {
    knowledge_.statistics = load_statistics(job_.statistics);
    const std::string& fingerprint = knowledge_.statistics.model_fingerprint;
    if (fingerprint.empty() || fingerprint == source_ + equalization_) return;
    const bool same_model = fingerprint.substr(0, source_.size()) == source_;
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: these statistics are of {} {}", job_.statistics.string(),
                            same_model ? "another equalization of" : "another model than",
                            job_.model.string()),
                same_model ? "give the same --data, or --equalize=false to both runs"
                           : "calibrate this model");
  }

  void observe_data() {
    if (!samples_.calibration) {
      throw Error(ErrorCode::invalid_argument, "mode static needs data to calibrate on",
                  "give --data SPEC or --statistics FILE");
    }
    CalibrateOptions options;
    options.detail =
        job_.save_statistics.empty() ? detail_for(recipe_.observer.kind) : Detail::histogram;
    options.threads = job_.threads;
    options.progress = job_.progress;
    knowledge_.statistics =
        calibrate(graph_, assignment_.observed(), *samples_.calibration, options);
    knowledge_.statistics.model_fingerprint = source_ + equalization_;
    knowledge_.statistics.data_fingerprint = samples_.data_fingerprint;
  }

  void note_non_finite() {
    for (const auto& [name, statistic] : knowledge_.statistics.values) {
      if (statistic.non_finite == 0) continue;
      report_.notes.push_back(fmt::format("value '{}': {} NaN or infinite values were left out",
                                          name, format_count(statistic.non_finite)));
    }
  }

  /// Means of the layers' inputs or outputs, where rounding or bias correction uses them.
  void measure_means() {
    const bool few_bits = std::any_of(
        assignment_.layers.begin(), assignment_.layers.end(), [](const AssignedLayer& layer) {
          return layer.weight_scheme && layer.weight_scheme->bits <= kSearchedBits;
        });
    if (recipe_.bias_correction == BiasCorrection::automatic) {
      recipe_.bias_correction = samples_.calibration ? BiasCorrection::fast : BiasCorrection::none;
      if (!samples_.calibration) report_.notes.push_back("biases were not corrected: without data");
    }
    const bool correct = recipe_.bias_correction != BiasCorrection::none;
    if (correct && !samples_.calibration) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("bias_correction {} needs data", to_string(recipe_.bias_correction)),
                  "give --data SPEC");
    }
    if (!samples_.calibration || (!correct && !few_bits)) return;
    stage("means", [&] {
      const auto some = first_samples(samples_.calibration, kMeanSamples);
      const MomentOptions run{job_.threads, job_.progress};
      Graph copy = graph_;
      knowledge_.moments = layer_moments(graph_, assign(copy, options_), *some, run);
      if (recipe_.bias_correction == BiasCorrection::empirical) {
        shifts_ = measure_shifts(graph_, options_, recipe_, knowledge_, *some, run);
      }
    });
  }

  void quantize_model() {
    stage("quantize", [&] {
      candidate_ = make_candidate(graph_, options_, recipe_, knowledge_, shifts_);
      for (const auto* notes : {&candidate_.assignment.notes, &candidate_.plan.notes}) {
        report_.notes.insert(report_.notes.end(), notes->begin(), notes->end());
      }
      for (const KeptFloat& kept : candidate_.assignment.kept_float) {
        report_.kept_float.push_back({kept.node, kept.op, kept.reason});
      }
      session_ = std::make_unique<Session>(candidate_.graph);
    });
  }

  void verify_model() {
    if (!verifier_) {
      report_.layers = describe_layers(candidate_, {});
      return;
    }
    stage("evaluate", [&] {
      report_.verification = verifier_->measure(*session_, &hashes_);
      compared_ = compare_layers();
      report_.layers = describe_layers(candidate_, compared_);
      count_macs();
    });
  }

  std::vector<ValueDifference> compare_layers() const {
    const auto some = first_samples(samples_.evaluation, kComparedSamples);
    CompareOptions options;
    options.threads = job_.threads;
    options.progress = job_.progress;
    for (const AssignedLayer& layer : candidate_.assignment.layers) {
      options.also.push_back(layer.input);
      options.also.push_back(layer.output);
    }
    return compare(graph_, candidate_.graph, *some, options).layers;
  }

  void count_macs() {
    const int64_t first = 0;
    const Batch sample = samples_.evaluation->get({&first, 1});
    std::vector<Dims> dims;
    for (const std::string& name : session_->input_names()) {
      dims.push_back(sample.inputs.at(name).dims());
    }
    if (fixed_batch(*session_, *samples_.evaluation) > 0) {
      const int64_t batch = fixed_batch(*session_, *samples_.evaluation);
      for (Dims& d : dims) {
        if (!d.empty()) d[0] = batch;
      }
    }
    const Session::MacCount macs = session_->count_macs(dims);
    report_.integer_macs = macs.integer;
    report_.total_macs = macs.total;
    report_.integer_mac_fraction =
        macs.total > 0 ? static_cast<double>(macs.integer) / static_cast<double>(macs.total) : 0;
  }

  /// integer_only: every node of the executed plan must read integers, except the first
  /// QuantizeLinear.
  void check_integers() {
    if (!recipe_.integer_only) return;
    const Graph& plan = session_->graph();
    std::string names;
    for (const NodeId id : plan.nodes()) {
      const Node& node = plan.node(id);
      const bool enters = node.is("QuantizeLinear") && plan.value(node.inputs[0]).is_input;
      const bool reads_float = std::any_of(node.inputs.begin(), node.inputs.end(), [&](ValueId v) {
        return v != kNoId && !plan.value(v).is_constant() && is_float(plan.value(v).dtype);
      });
      if (enters || !reads_float) continue;
      names += fmt::format("{}'{}' ({})", names.empty() ? "" : ", ", node.name, node.op);
    }
    if (names.empty()) return;
    throw Error(ErrorCode::unsupported, fmt::format("these nodes would stay float: {}", names),
                "leave out integer_only, or cut them off the model");
  }

  void pass_gate() {
    if (!verifier_) return;
    const std::string failure = gate_failure(recipe_, report_.verification);
    if (failure.empty()) return;
    report_.refusal = GateRefusal{failure, {}, {}, {}};
    stage("find a cure", [&] { find_cure(*report_.refusal); });
    finish();
    std::string worst;
    const auto harmful = most_harmful(candidate_, compared_);
    for (size_t i = 0; i < std::min<size_t>(harmful.size(), 3); ++i) {
      worst += fmt::format("{}'{}'", i > 0 ? ", " : "", harmful[i]);
    }
    throw QualityBelowTarget(fmt::format("{}; worst layers: {}", failure, worst), hint(), report_);
  }

  /// Keeps more and more of the worst layers float until the gate lets the model pass.
  void find_cure(GateRefusal& refusal) {
    const auto harmful = most_harmful(candidate_, compared_);
    for (size_t count = 1; count < harmful.size(); count *= 2) {
      QuantizeOptions options = options_;
      std::vector<std::string> names;
      for (size_t i = 0; i < count; ++i) names.push_back(as_pattern(harmful[i]));
      options.keep_float.insert(options.keep_float.end(), names.begin(), names.end());
      Candidate tried = make_candidate(graph_, options, recipe_, knowledge_, shifts_);
      const Verification v = verifier_->measure(Session(std::move(tried.graph)));
      if (!gate_failure(recipe_, v).empty()) continue;
      refusal.keep_float = std::move(names);
      refusal.measured = v;
      const std::string command = job_.command.empty() ? "narrow quantize ..." : job_.command;
      refusal.command =
          fmt::format("{} --keep-float {}", command, fmt::join(refusal.keep_float, ","));
      return;
    }
  }

  /// A node's name as one element of a comma separated list of patterns.
  static std::string as_pattern(std::string name) {
    std::replace(name.begin(), name.end(), ',', '?');
    return name;
  }

  std::string hint() const {
    const GateRefusal& r = *report_.refusal;
    if (!r.measured) {
      return "no set of layers kept float was enough; try other types, another observer or more "
             "calibration samples";
    }
    const Verification& v = *r.measured;
    const std::string value = is_percent(v.metric) ? fmt::format("{:.2f} %", v.quantized_value)
                                                   : fmt::format("{:.6f}", v.quantized_value);
    return fmt::format("rerun with: {}\n(measured: {} {}, cosine {:.6f})", r.command,
                       to_string(v.metric), value, v.cosine);
  }

  void add_metadata(Graph& graph) const {
    auto& metadata = graph.metadata;
    metadata["narrow.version"] = kVersion;
    metadata["narrow.recipe"] = report_.recipe;
    metadata["narrow.seed"] = fmt::format("{}", recipe_.seed);
    metadata["narrow.source"] = source_;
    if (!samples_.data_fingerprint.empty()) metadata["narrow.data"] = samples_.data_fingerprint;
    const Verification& v = report_.verification;
    if (v.samples == 0) return;
    metadata["narrow.verification"] =
        fmt::format("metric: {}\nfloat: {:.4f}\nquantized: {:.4f}\nsamples: {}\ncosine: {:.6f}\n",
                    to_string(v.metric), v.float_value, v.quantized_value, v.samples, v.cosine);
  }

  /// The graph as the file shall hold it.
  Graph file_graph() {
    Graph graph = candidate_.graph;
    if (recipe_.format == OutputFormat::qoperator) {
      for (const LoweringRefusal& r : convert_to_qoperator(graph).refused) {
        report_.notes.push_back(
            fmt::format("{} ({}) has no qoperator form: {}", r.node, r.op, r.reason));
      }
    }
    Recipe resolved = recipe_;
    resolved.quantize = options_;
    resolved.quantize.integer_throughout = false;
    report_.recipe = dump_recipe(resolved, DumpDefaults::include);
    add_metadata(graph);
    return graph;
  }

  void save() {
    const Graph graph = file_graph();
    if (job_.output.empty()) return;
    TemporaryModel file(job_.output);
    OnnxWriteReport written;
    OnnxWriteOptions options;
    options.opset = recipe_.opset;
    stage("write", [&] { written = write_onnx(graph, file.path(), options); });
    const int last = find_target(options_.target).max_opset;
    if (written.opset > last) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("the result needs opset {}, target {} reads {}", written.opset,
                              options_.target, last));
    }
    stage("verify", [&] { read_back(file.path()); });
    if (written.external_bytes > 0) {
      // The model names its data file: write the pair again under the final name.
      write_onnx(graph, job_.output, options);
    } else {
      file.rename_to(job_.output);
    }
    report_.output = job_.output.string();
    report_.opset = written.opset;
    report_.quantized_bytes = written.bytes + written.external_bytes;
  }

  void read_back(const fs::path& path) {
    const Session again(read_onnx(path));
    if (!verifier_) return;
    const int64_t different = verifier_->count_different(again, hashes_);
    if (different > 0) {
      throw Error(ErrorCode::internal,
                  fmt::format("{}: the file read back gives other results in {} batches",
                              job_.output.string(), different),
                  "please report this with the model");
    }
    report_.reloaded_identical = true;
  }

  void measure_latency() {
    if (!job_.measure_latency) return;
    stage("latency", [&] {
      BenchOptions options;
      options.threads = job_.threads;
      options.progress = job_.progress;
      const int64_t first = 0;
      if (samples_.evaluation && fixed_batch(*session_, *samples_.evaluation) <= 1) {
        const auto inputs = samples_.evaluation->get({&first, 1}).inputs;
        note_latency(bench(float_graph_, inputs, options),
                     bench(candidate_.graph, inputs, options));
      } else {
        note_latency(bench(float_graph_, options), bench(candidate_.graph, options));
      }
    });
  }

  void note_latency(const BenchResult& before, const BenchResult& after) {
    report_.latency =
        LatencyChange{before.batch, before.threads, before.median_us, after.median_us};
  }

  void finish() { report_.peak_rss_bytes = peak_rss_bytes(); }

  const QuantizeJob& job_;
  Recipe recipe_;
  QuantizeOptions options_;
  QuantizeReport report_;
  Graph float_graph_;
  Graph graph_;               // what is quantized
  std::string source_;        // fingerprint of the float file
  std::string equalization_;  // fingerprint of what equalize_model() did
  Assignment assignment_;
  SampleSets samples_;
  std::unique_ptr<Verifier> verifier_;
  Knowledge knowledge_;
  BiasShifts shifts_;
  Candidate candidate_;
  std::unique_ptr<Session> session_;  // of the candidate
  std::vector<std::string> hashes_;   // of its outputs, by batch
  std::vector<ValueDifference> compared_;
};

}  // namespace

QualityBelowTarget::QualityBelowTarget(std::string message, std::string hint, QuantizeReport report)
    : Error(ErrorCode::quality_below_target, std::move(message), std::move(hint)),
      report_(std::make_shared<const QuantizeReport>(std::move(report))) {}

QuantizeReport run_quantize(const QuantizeJob& job) {
  return Quantizer(job).run();
}

}  // namespace narrow
