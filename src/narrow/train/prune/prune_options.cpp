// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/prune/prune_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/train/prune/spec_text.h"

namespace narrow::train {
namespace {

constexpr const char* kMethods[] = {"none",     "magnitude", "level", "sensitivity",
                                    "splicing", "movement",  "keep"};
constexpr const char* kScopes[] = {"global", "layer"};
constexpr const char* kGroups[] = {"filters", "channels"};
constexpr int64_t kMasks = 50;  // of a run, where nothing else is said
constexpr int64_t kLongestGroup = 64;
constexpr double kMostEpochs = 1e6;

[[noreturn]] void refuse(std::string message, std::string hint = {}) {
  throw Error(ErrorCode::invalid_argument, std::move(message), std::move(hint));
}

PrunePattern pattern_of(const std::string& text) {
  if (text == "element") return {};
  const size_t colon = text.find(':');
  PrunePattern p;
  if (colon != std::string::npos) {
    p.keep = integer_of("pattern", text.substr(0, colon), 1, kLongestGroup);
    p.of = integer_of("pattern", text.substr(colon + 1), 2, kLongestGroup);
    if (p.keep < p.of) return p;
  } else if (text.starts_with("1x")) {
    p.of = integer_of("pattern", text.substr(2), 2, kLongestGroup);
    return p;
  }
  refuse(fmt::format("pattern: '{}' is not possible", text), "write element, 2:4 or 1x4");
}

struct PruneKey {
  const char* name;
  void (*set)(PruneOptions&, const std::string&);
};
constexpr PruneKey kPruneKeys[] = {
    {"sparsity", [](PruneOptions& o,
                    const std::string& t) { o.sparsity = number_of("sparsity", t, 0, 0.9999); }},
    {"initial",
     [](PruneOptions& o, const std::string& t) { o.initial = number_of("initial", t, 0, 0.9999); }},
    {"scope",
     [](PruneOptions& o, const std::string& t) {
       o.scope = static_cast<PruneScope>(choice_of("scope", t, kScopes));
     }},
    {"pattern", [](PruneOptions& o, const std::string& t) { o.pattern = pattern_of(t); }},
    {"k", [](PruneOptions& o, const std::string& t) { o.k = number_of("k", t, 0, 100); }},
    {"low", [](PruneOptions& o, const std::string& t) { o.low = number_of("low", t, 0, 100); }},
    {"high", [](PruneOptions& o, const std::string& t) { o.high = number_of("high", t, 0, 100); }},
    {"start", [](PruneOptions& o,
                 const std::string& t) { o.start = number_of("start", t, 0, kMostEpochs); }},
    {"end",
     [](PruneOptions& o, const std::string& t) { o.end = number_of("end", t, 0, kMostEpochs); }},
    {"frequency",
     [](PruneOptions& o, const std::string& t) {
       o.frequency = integer_of("frequency", t, 1, int64_t{1} << 40);
     }},
    {"layers", [](PruneOptions& o, const std::string& t) { o.layers.push_back(t); }},
    {"except", [](PruneOptions& o, const std::string& t) { o.except.push_back(t); }},
};

struct RegularizeKey {
  const char* name;
  void (*set)(RegularizeOptions&, const std::string&);
};
constexpr RegularizeKey kRegularizeKeys[] = {
    {"l1", [](RegularizeOptions& o, const std::string& t) { o.l1 = number_of("l1", t, 0, 1000); }},
    {"group_lasso",
     [](RegularizeOptions& o, const std::string& t) {
       o.group_lasso = number_of("group_lasso", t, 0, 1000);
     }},
    {"groups",
     [](RegularizeOptions& o, const std::string& t) {
       o.groups = static_cast<LassoGroups>(choice_of("groups", t, kGroups));
     }},
    {"layers", [](RegularizeOptions& o, const std::string& t) { o.layers.push_back(t); }},
};

/// Gives each key to its row.
template <class Options, class Row, size_t kCount>
void set_keys(Options& options, const SpecText& text, const Row (&rows)[kCount], const char* flag) {
  for (const auto& [key, value] : text.keys) {
    const auto row =
        std::find_if(std::begin(rows), std::end(rows), [&](const Row& r) { return key == r.name; });
    if (row == std::end(rows)) {
      std::vector<const char*> names;
      for (const Row& r : rows) names.push_back(r.name);
      unknown_key(flag, key, names);
    }
    row->set(options, value);
  }
}

/// sparsity and initial count; the others follow thresholds.
bool has_level(PruneMethod m) {
  return m == PruneMethod::magnitude || m == PruneMethod::level || m == PruneMethod::movement;
}

}  // namespace

const char* to_string(PruneMethod method) {
  return kMethods[static_cast<size_t>(method)];
}
const char* to_string(PruneScope scope) {
  return kScopes[static_cast<size_t>(scope)];
}
const char* to_string(LassoGroups groups) {
  return kGroups[static_cast<size_t>(groups)];
}
std::string to_string(const PrunePattern& p) {
  if (p.of == 1) return "element";
  return p.keep == 0 ? fmt::format("1x{}", p.of) : fmt::format("{}:{}", p.keep, p.of);
}

PruneOptions parse_prune(std::string_view text) {
  const SpecText parts = split_spec(text, "prune");
  PruneOptions o;
  o.method = static_cast<PruneMethod>(choice_of("prune", parts.word, kMethods));
  set_keys(o, parts, kPruneKeys, "prune");
  const bool said = text.find("sparsity=") != std::string_view::npos;
  if (o.pattern.keep > 0) {
    const auto of = static_cast<double>(o.pattern.of);
    const double own = (of - static_cast<double>(o.pattern.keep)) / of;
    if (said && o.sparsity != own) {
      refuse(fmt::format("pattern {} has a sparsity of {}", to_string(o.pattern), own),
             "leave sparsity out");
    }
    o.sparsity = own;
  }
  return o;
}

std::string to_text(const PruneOptions& o) {
  if (!o.active()) return "";
  std::string out = to_string(o.method);
  if (has_level(o.method)) {
    out += fmt::format(",sparsity={},scope={}", o.sparsity, to_string(scope_of(o)));
    if (o.initial > 0) out += fmt::format(",initial={}", o.initial);
  }
  if (o.method == PruneMethod::sensitivity || o.method == PruneMethod::splicing) {
    out += fmt::format(",k={}", o.k);
  }
  if (o.method == PruneMethod::splicing) out += fmt::format(",low={},high={}", o.low, o.high);
  if (o.pattern.of > 1) out += ",pattern=" + to_string(o.pattern);
  if (o.start > 0) out += fmt::format(",start={}", o.start);
  if (o.end) out += fmt::format(",end={}", *o.end);
  if (o.frequency > 0) out += fmt::format(",frequency={}", o.frequency);
  for (const std::string& glob : o.layers) out += ",layers=" + glob;
  for (const std::string& glob : o.except) out += ",except=" + glob;
  return out;
}

void check_options(const PruneOptions& o, int64_t epochs) {
  if (!o.active()) return;
  const auto last = static_cast<double>(epochs);
  if (o.initial > o.sparsity) refuse("prune: initial is above sparsity");
  if (o.low > o.high) refuse("prune: low is above high");
  if (!has_level(o.method) && o.pattern.of > 1) {
    refuse(fmt::format("prune: {} removes single weights", to_string(o.method)),
           "patterns go with magnitude, level and movement");
  }
  if (epochs == 0) {
    if (o.method == PruneMethod::splicing || o.method == PruneMethod::movement) {
      refuse(fmt::format("prune: {} needs training", to_string(o.method)), "give --epochs");
    }
    return;
  }
  if (o.start >= last) refuse("prune: start is after the last epoch");
  if (o.end && (*o.end > last || *o.end < o.start)) {
    refuse(fmt::format("prune: end is {}, not between start and the last epoch, {}", *o.end, last));
  }
}

PruneScope scope_of(const PruneOptions& o) {
  return o.scope.value_or(o.method == PruneMethod::magnitude ? PruneScope::global
                                                             : PruneScope::layer);
}

bool PruneWindow::due(int64_t step) const {
  if (step < first || step > last) return false;
  return step == last || (step - first) % frequency == 0;
}

PruneWindow window_of(const PruneOptions& o, int64_t steps_per_epoch, int64_t total_steps) {
  const auto steps = [&](double epochs) {
    const double exact = epochs * static_cast<double>(steps_per_epoch);
    return std::min(total_steps, static_cast<int64_t>(std::llround(exact)));
  };
  PruneWindow w;
  w.first = steps(o.start);
  const bool once = o.method == PruneMethod::level || o.method == PruneMethod::keep;
  w.last = once ? w.first : o.end ? steps(*o.end) : (w.first + total_steps) / 2;
  w.last = std::max(w.first, w.last);
  w.frequency = o.frequency > 0 ? o.frequency : std::max<int64_t>(1, (w.last - w.first) / kMasks);
  return w;
}

double sparsity_at(const PruneOptions& o, const PruneWindow& w, int64_t step) {
  if (step < w.first) return 0;
  if (step >= w.last) return o.sparsity;
  const double left =
      1 - static_cast<double>(step - w.first) / static_cast<double>(w.last - w.first);
  return o.sparsity + (o.initial - o.sparsity) * left * left * left;
}

RegularizeOptions parse_regularize(std::string_view text) {
  const SpecText parts = split_spec(text, "regularize");
  if (!parts.word.empty()) {
    refuse(fmt::format("regularize: '{}' is no KEY=VALUE", parts.word),
           "write l1=1e-5 or group_lasso=1e-4");
  }
  RegularizeOptions o;
  set_keys(o, parts, kRegularizeKeys, "regularize");
  if (!o.active()) refuse("regularize: neither l1 nor group_lasso is above 0");
  return o;
}

std::string to_text(const RegularizeOptions& o) {
  if (!o.active()) return "";
  std::string out =
      fmt::format("l1={},group_lasso={},groups={}", o.l1, o.group_lasso, to_string(o.groups));
  for (const std::string& glob : o.layers) out += ",layers=" + glob;
  return out;
}

}  // namespace narrow::train
