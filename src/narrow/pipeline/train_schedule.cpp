// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train_schedule.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/hash.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/graph/op_table.h"
#include "narrow/pipeline/train_keys.h"
#include "narrow/pipeline/yaml_tree.h"
#include "narrow/train/networks.h"
#include "narrow/train/ranks.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostPhases = 1000;
constexpr const char* kStamp = "narrow.phase";

[[noreturn]] void fail(std::string_view source, const YamlNode& node, const std::string& what,
                       std::string hint = {}) {
  throw Error(ErrorCode::invalid_argument, fmt::format("{}: {}", yaml_place(source, node), what),
              std::move(hint));
}

const std::string& scalar(std::string_view source, const YamlNode& node, const std::string& key) {
  if (node.kind != YamlNode::Kind::scalar) fail(source, node, key + ": one value");
  return node.text;
}

/// {method: magnitude, sparsity: 0.8, layers: [a, b]} as magnitude,sparsity=0.8,layers=a,layers=b.
std::string map_text(std::string_view source, const YamlNode& map, const std::string& key) {
  std::string word;
  std::string keys;
  for (const auto& [name, value] : map.entries) {
    if (name.text == "method") {
      word = scalar(source, value, key);
      continue;
    }
    const bool list = value.kind == YamlNode::Kind::sequence;
    const auto add = [&](const YamlNode& item) {
      if (!word.empty() || !keys.empty()) keys += ",";
      keys += name.text + "=" + scalar(source, item, name.text);
    };
    if (list) {
      for (const YamlNode& item : value.items) add(item);
    } else {
      add(value);
    }
  }
  // The method may stand behind other keys.
  if (!word.empty() && !keys.empty() && keys[0] != ',') keys.insert(0, ",");
  return word + keys;
}

std::string list_text(std::string_view source, const YamlNode& list, const std::string& key) {
  std::string out;
  for (const YamlNode& item : list.items) {
    out += (out.empty() ? "" : " ") + scalar(source, item, key);
  }
  return out;
}

std::string value_text(std::string_view source, const YamlNode& value, const std::string& key) {
  const KeyForm form = train_key_form(key);
  if (value.kind == YamlNode::Kind::map && form == KeyForm::map)
    return map_text(source, value, key);
  if (value.kind == YamlNode::Kind::sequence && form == KeyForm::list) {
    return list_text(source, value, key);
  }
  return scalar(source, value, key);
}

void set_key(TrainJob& job, std::string_view source, const YamlEntry& entry) {
  const std::string& key = entry.key.text;
  const std::string text = value_text(source, entry.value, key);
  try {
    set_train_key(job, key, text);
  } catch (const Error& e) {
    fail(source, entry.key, e.message(), e.hint());
  }
}

struct PhaseKeys {
  bool prune = false;
  bool teacher = false;
};

TrainPhase parse_phase(std::string_view source, const YamlNode& block, const TrainJob& base,
                       PhaseKeys& said) {
  if (block.kind != YamlNode::Kind::map) fail(source, block, "a phase is a map of keys to values");
  TrainPhase phase{.name = "", .job = base, .stamp = "", .grids = ""};
  for (const YamlEntry& entry : block.entries) {
    if (entry.key.text == "name") {
      phase.name = scalar(source, entry.value, "name");
      continue;
    }
    said.prune |= entry.key.text == "prune";
    said.teacher |= entry.key.text == "teacher";
    set_key(phase.job, source, entry);
  }
  if (said.teacher && !train::learns_from_teacher(phase.job.options)) {
    fail(source, block, "nothing is learned from the teacher", train::kTeacherHint);
  }
  try {
    train::check_options(phase.job.options);
  } catch (const Error& e) {
    fail(source, block, e.message(), e.hint());
  }
  return phase;
}

/// What follows from the phases before.
void link(TrainPhase& phase, const PhaseKeys& said, const std::vector<TrainPhase>& before) {
  phase.grids = phase.job.qat;
  if (!before.empty()) {
    const TrainPhase& last = before.back();
    // Grids of the same bits are there: it goes on from their codes.
    if (phase.grids.empty()) phase.grids = last.grids;
    if (phase.job.qat == last.grids) phase.job.qat.clear();
    const bool pruned = last.job.options.prune.active();
    if (pruned && !said.prune) {
      phase.job.options.prune = train::PruneOptions{.method = train::PruneMethod::keep};
    }
    phase.job.arch.clear();
  }
  // Who teaches is the model that came in, not what the phases before made of it.
  if (said.teacher) return;
  if (!train::learns_from_teacher(phase.job.options)) {
    phase.job.teacher.clear();
  } else if (phase.job.teacher.empty()) {
    phase.job.teacher = phase.job.model;
  }
}

std::string text_of(const YamlNode& node) {
  std::string out = node.text;
  for (const YamlNode& item : node.items) out += "[" + text_of(item) + "]";
  for (const YamlEntry& entry : node.entries) {
    out += "{" + entry.key.text + ":" + text_of(entry.value) + "}";
  }
  return out;
}

std::string what_of(const TrainJob& job) {
  std::string out;
  const auto add = [&](const char* name, const std::string& text) {
    if (!text.empty()) out += fmt::format("{}{} {}", out.empty() ? "" : "; ", name, text);
  };
  add("thin", to_text(job.thin));
  add("low-rank", to_text(job.low_rank));
  add("prune", to_text(job.options.prune));
  add("regularize", to_text(job.options.regularize));
  add("lora", to_text(job.adapters));
  add("freeze", fmt::format("{}", fmt::join(job.freeze, ",")));
  add("qat", job.qat);
  return out.empty() ? "train" : out;
}

/// "out.onnx" as "out.phase1.onnx".
fs::path numbered(const fs::path& file, size_t index) {
  const std::string name =
      fmt::format("{}.phase{}{}", file.stem().string(), index + 1, file.extension().string());
  return file.parent_path() / name;
}

/// Whether the file is what this phase left.
bool done(const fs::path& file, const std::string& stamp) {
  if (!fs::exists(file)) return false;
  const Graph graph = read_onnx(file);
  const auto found = graph.metadata.find(kStamp);
  return found != graph.metadata.end() && found->second == stamp;
}

}  // namespace

std::vector<TrainPhase> parse_schedule(std::string_view yaml, std::string_view source,
                                       const TrainJob& base) {
  const YamlNode root = parse_yaml(yaml, source);
  if (root.kind != YamlNode::Kind::map) {
    fail(source, root, "a schedule is a map with a list of phases", "write 'phases:' and a list");
  }
  TrainJob common = base;
  const YamlNode* list = nullptr;
  Hash64 hash;
  hash.add_text(base.model.string() + "\n" + base.arch + "\n" + base.data.text());
  for (const YamlEntry& entry : root.entries) {
    if (entry.key.text == "phases") {
      list = &entry.value;
      continue;
    }
    set_key(common, source, entry);
    hash.add_text(entry.key.text + ":" + text_of(entry.value));
  }
  if (list == nullptr || list->kind != YamlNode::Kind::sequence || list->items.empty()) {
    fail(source, list != nullptr ? *list : root, "phases: a list of phases");
  }
  if (list->items.size() > kMostPhases) fail(source, *list, "too many phases");
  std::vector<TrainPhase> phases;
  for (const YamlNode& block : list->items) {
    PhaseKeys said;
    TrainPhase phase = parse_phase(source, block, common, said);
    link(phase, said, phases);
    if (phase.name.empty()) phase.name = fmt::format("phase {}", phases.size() + 1);
    hash.add_text(text_of(block));
    phase.stamp = hash.hex();
    phases.push_back(std::move(phase));
  }
  const bool taught = std::ranges::any_of(
      phases, [](const TrainPhase& p) { return train::learns_from_teacher(p.job.options); });
  if (!common.teacher.empty() && !taught) {
    fail(source, *list, "no phase learns from the teacher", train::kTeacherHint);
  }
  return phases;
}

std::vector<TrainPhase> load_schedule(const fs::path& path, const TrainJob& base) {
  return parse_schedule(read_text(path, kMaxYamlBytes), path.string(), base);
}

SchedulePlan plan_schedule(const std::vector<TrainPhase>& phases) {
  const TrainJob& first = phases.front().job;
  if (first.data.kind == "text") {
    throw Error(ErrorCode::unsupported, "phases and dry runs are for ONNX models",
                "train a language model without them");
  }
  Graph graph = first.arch.empty() ? read_onnx(first.model)
                                   : train::make_network(first.arch, first.options.seed);
  infer_shapes(graph);
  SchedulePlan plan;
  plan.model = first.arch.empty() ? first.model.string() : first.arch;
  plan.output = first.output.string();
  for (const TrainPhase& phase : phases) {
    const train::TrainOptions& o = phase.job.options;
    PlannedPhase planned{.name = phase.name,
                         .epochs = o.epochs,
                         .lr = o.lr,
                         .loss = to_string(o.loss),
                         .what = what_of(phase.job)};
    const auto name_layers = [&](bool active, const std::vector<std::string>& layers,
                                 const std::vector<std::string>& except) {
      if (!active) return;
      try {
        for (const auto& target : train::find_targets(graph, layers, except)) {
          planned.layers.push_back(target.node);
        }
      } catch (Error& e) {
        e.add_context(fmt::format("phase '{}'", phase.name));
        throw;
      }
    };
    name_layers(phase.job.thin.active, phase.job.thin.layers, phase.job.thin.except);
    name_layers(phase.job.low_rank.active, phase.job.low_rank.layers, phase.job.low_rank.except);
    name_layers(o.prune.active(), o.prune.layers, o.prune.except);
    name_layers(o.regularize.active(), o.regularize.layers, {});
    std::ranges::sort(planned.layers);
    planned.layers.erase(std::unique(planned.layers.begin(), planned.layers.end()),
                         planned.layers.end());
    plan.phases.push_back(std::move(planned));
  }
  return plan;
}

ScheduleReport run_schedule(const std::vector<TrainPhase>& phases,
                            const std::function<void(const std::string& name)>& begin) {
  if (train::rank_place()) {
    throw Error(ErrorCode::unsupported, "a schedule of phases runs in one process",
                "start the phases one by one to train each in several");
  }
  plan_schedule(phases);  // names that do not exist are said before the first step
  ScheduleReport report;
  fs::path model;
  std::vector<fs::path> made;
  for (size_t i = 0; i < phases.size(); ++i) {
    const TrainPhase& phase = phases[i];
    const bool last = i + 1 == phases.size();
    TrainJob job = phase.job;
    if (i > 0) job.model = model;
    job.output = last ? phase.job.output : numbered(phase.job.output, i);
    job.metadata[kStamp] = phase.stamp;
    job.keep_norms = !last;
    for (fs::path* file : {&job.checkpoint, &job.log, &job.plot}) {
      if (!last && !file->empty()) *file = numbered(*file, i);
    }
    model = job.output;
    if (!last) made.push_back(model);
    if (phase.job.resume && !last && done(model, phase.stamp)) {
      report.phases.push_back({.name = phase.name, .resumed = true, .report = {}});
      continue;
    }
    if (begin) begin(phase.name);
    // The phase in which the run ended has a checkpoint; one that never began has none.
    job.resume = phase.job.resume && fs::exists(checkpoint_of(job));
    try {
      report.phases.push_back({.name = phase.name, .resumed = false, .report = run_train(job)});
    } catch (Error& e) {
      e.add_context(fmt::format("phase '{}'", phase.name));
      throw;
    }
  }
  for (const fs::path& file : made) fs::remove(file);
  return report;
}

}  // namespace narrow
