// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/train_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <sstream>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"
#include "narrow/pipeline/train_qat.h"
#include "narrow/ptq/options.h"

namespace narrow {
namespace {

template <class T>
T number(const std::string& text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && stop == end) return value;
  throw Error(ErrorCode::invalid_argument, fmt::format("'{}' is no number", text));
}

bool truth(const std::string& text) {
  if (text == "true" || text == "false") return text == "true";
  throw Error(ErrorCode::invalid_argument, fmt::format("'{}' is neither true nor false", text));
}

template <class T>
T choice(std::optional<T> (*from_string)(std::string_view), const std::string& text,
         const std::vector<std::string>& names) {
  if (const auto value = from_string(text)) return *value;
  throw Error(ErrorCode::invalid_argument, fmt::format("'{}' is not possible", text),
              did_you_mean(text, names));
}

template <int64_t train::TrainOptions::*kField>
void set_integer(TrainJob& job, const std::string& text) {
  job.options.*kField = number<int64_t>(text);
}
template <double train::TrainOptions::*kField>
void set_real(TrainJob& job, const std::string& text) {
  job.options.*kField = number<double>(text);
}
template <int64_t train::QatOptions::*kField>
void set_qat_integer(TrainJob& job, const std::string& text) {
  job.options.qat.*kField = number<int64_t>(text);
}
template <double train::QatOptions::*kField>
void set_qat_real(TrainJob& job, const std::string& text) {
  job.options.qat.*kField = number<double>(text);
}

std::optional<bool> compute_from_string(std::string_view name) {
  if (name == "float32") return false;
  if (name == "bfloat16") return true;
  return std::nullopt;
}

std::vector<std::string> words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> out;
  for (std::string word; in >> word;) out.push_back(word);
  return out;
}

void set_lora(TrainJob& job, const std::string& text) {
  AdapterOptions adapters = parse_adapters(text);
  adapters.input = job.adapters.input;
  adapters.output = job.adapters.output;
  job.adapters = std::move(adapters);
}

struct TrainKey {
  const char* name;
  void (*set)(TrainJob& job, const std::string& text);
  KeyForm form = KeyForm::scalar;
};

using Job = TrainJob;
using Text = std::string;
using Options = train::TrainOptions;
constexpr TrainKey kKeys[] = {
    {"data", [](Job& j, const Text& t) { j.data = parse_data_spec(t); }},
    {"eval_data", [](Job& j, const Text& t) { j.eval_data = parse_data_spec(t); }},
    {"epochs", set_integer<&Options::epochs>},
    {"batch", set_integer<&Options::batch>},
    {"accumulate", set_integer<&Options::accumulate>},
    {"optimizer",
     [](Job& j, const Text& t) {
       j.options.optimizer = choice(train::optimizer_from_string, t, {"sgd", "adam", "adamw"});
     }},
    {"lr", set_real<&Options::lr>},
    {"scale_lr", set_real<&Options::scale_lr>},
    {"momentum", set_real<&Options::momentum>},
    {"weight_decay", set_real<&Options::weight_decay>},
    {"clip_norm", set_real<&Options::clip_norm>},
    {"schedule",
     [](Job& j, const Text& t) {
       j.options.schedule = choice(train::schedule_from_string, t, {"constant", "step", "cosine"});
     }},
    {"warmup_steps", set_integer<&Options::warmup_steps>},
    {"step_epochs", set_integer<&Options::step_epochs>},
    {"gamma", set_real<&Options::gamma>},
    {"min_factor", set_real<&Options::min_factor>},
    {"loss",
     [](Job& j, const Text& t) {
       j.options.loss = choice(train::loss_from_string, t, {"cross_entropy", "mse", "distill"});
     }},
    {"teacher", [](Job& j, const Text& t) { j.teacher = t; }},
    {"temperature", set_real<&Options::temperature>},
    {"distill_weight", set_real<&Options::distill_weight>},
    {"match",
     [](Job& j, const Text& t) {
       j.options.match.pairs.clear();
       for (const std::string& pair : words(t)) {
         j.options.match.pairs.push_back(train::parse_feature_pair(pair));
       }
     },
     KeyForm::list},
    {"match_weight", [](Job& j, const Text& t) { j.options.match.weight = number<double>(t); }},
    {"label_smoothing", set_real<&Options::label_smoothing>},
    {"ranges",
     [](Job& j, const Text& t) {
       j.options.qat.ranges =
           choice(train::range_from_string, t, {"learned", "fixed", "moving_average"});
     }},
    {"qat_method",
     [](Job& j, const Text& t) {
       j.options.qat.method =
           choice(train::qat_method_from_string, t, {"lsq", "lsq_plus", "pact", "dorefa", "wrpn"});
     }},
    {"freeze_step", set_qat_integer<&train::QatOptions::freeze_step>},
    {"range_momentum", set_qat_real<&train::QatOptions::range_momentum>},
    {"clip_decay", set_qat_real<&train::QatOptions::clip_decay>},
    {"freeze_oscillating",
     [](Job& j, const Text& t) {
       j.options.qat.oscillation = number<double>(t);
       j.options.qat.oscillation_start = std::max(0.1, j.options.qat.oscillation);
     }},
    {"granularity",
     [](Job& j, const Text& t) {
       j.granularity = choice(granularity_from_string, t, {"per_tensor", "per_axis"});
     }},
    {"first_last", [](Job& j, const Text& t) { j.first_last = number<int>(t); }},
    {"norm_freeze", set_integer<&Options::norm_freeze>},
    {"norm_batches", set_integer<&Options::norm_batches>},
    {"compute",
     [](Job& j, const Text& t) {
       j.options.bfloat16 = choice(compute_from_string, t, {"float32", "bfloat16"});
     }},
    {"ema", set_real<&Options::ema>},
    {"patience", set_integer<&Options::patience>},
    {"shift", [](Job& j, const Text& t) { j.options.augment.shift = number<int64_t>(t); }},
    {"crop", [](Job& j, const Text& t) { j.options.augment.crop = number<int64_t>(t); }},
    {"flip", [](Job& j, const Text& t) { j.options.augment.flip = truth(t); }},
    {"seed", [](Job& j, const Text& t) { j.options.seed = number<uint64_t>(t); }},
    {"qat",
     [](Job& j, const Text& t) {
       parse_qat(t);
       j.qat = t;
     }},
    {"prune", [](Job& j, const Text& t) { j.options.prune = train::parse_prune(t); }, KeyForm::map},
    {"regularize", [](Job& j, const Text& t) { j.options.regularize = train::parse_regularize(t); },
     KeyForm::map},
    {"thin", [](Job& j, const Text& t) { j.thin = train::parse_thin(t); }, KeyForm::map},
    {"low_rank", [](Job& j, const Text& t) { j.low_rank = train::parse_low_rank(t); },
     KeyForm::map},
    {"freeze", [](Job& j, const Text& t) { j.freeze = words(t); }, KeyForm::list},
    {"lora", set_lora, KeyForm::map},
    {"lora_input", [](Job& j, const Text& t) { j.adapters.input = t; }},
    {"lora_output", [](Job& j, const Text& t) { j.adapters.output = t; }},
    {"checkpoint_steps", [](Job& j, const Text& t) { j.checkpoint_steps = number<int64_t>(t); }},
};

const TrainKey* find_key(std::string_view key) {
  const auto row = std::ranges::find_if(kKeys, [&](const TrainKey& k) { return key == k.name; });
  return row == std::end(kKeys) ? nullptr : row;
}

}  // namespace

void set_train_key(TrainJob& job, std::string_view key, const std::string& text) {
  const TrainKey* row = find_key(key);
  if (row == nullptr) {
    throw Error(ErrorCode::invalid_argument, fmt::format("no key '{}'", key),
                did_you_mean(key, train_keys()));
  }
  row->set(job, text);
}

KeyForm train_key_form(std::string_view key) {
  const TrainKey* row = find_key(key);
  return row == nullptr ? KeyForm::scalar : row->form;
}

std::vector<std::string> train_keys() {
  std::vector<std::string> names;
  for (const TrainKey& k : kKeys) names.emplace_back(k.name);
  return names;
}

}  // namespace narrow
