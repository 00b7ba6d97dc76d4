// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/checkpoint.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "narrow/core/error.h"
#include "narrow/formats/safetensors/safetensors.h"

namespace narrow::train {
namespace {

using nlohmann::json;

constexpr const char* kKey = "narrow.train";
constexpr int kFormat = 2;

json to_json(const EpochRecord& r) {
  json out = {{"epoch", r.epoch},
              {"loss", r.loss},
              {"lr", r.lr},
              {"seconds", r.seconds},
              {"samples_per_second", r.samples_per_second}};
  if (r.metric) out["metric"] = *r.metric;
  return out;
}

EpochRecord record_from(const json& j) {
  EpochRecord r;
  r.epoch = j.at("epoch").get<int64_t>();
  r.loss = j.at("loss").get<double>();
  r.lr = j.at("lr").get<double>();
  r.seconds = j.at("seconds").get<double>();
  r.samples_per_second = j.at("samples_per_second").get<double>();
  if (j.contains("metric")) r.metric = j.at("metric").get<double>();
  return r;
}

}  // namespace

void write_checkpoint(const CheckpointPlace& place, const Checkpoint& checkpoint) {
  json about = {{"format", kFormat},
                {"fingerprint", place.fingerprint},
                {"epoch", checkpoint.epoch},
                {"samples", checkpoint.samples},
                {"loss_sum", checkpoint.loss_sum},
                {"best_epoch", checkpoint.best_epoch},
                {"best_metric", checkpoint.best_metric},
                {"epochs", json::array()}};
  for (const EpochRecord& r : checkpoint.epochs) about["epochs"].push_back(to_json(r));
  write_safetensors(place.path, checkpoint.tensors, {{kKey, about.dump()}});
}

Checkpoint read_checkpoint(const CheckpointPlace& place) {
  const SafetensorsFile file = SafetensorsFile::open(place.path);
  const auto about = file.metadata().find(kKey);
  if (about == file.metadata().end()) {
    throw Error(ErrorCode::corrupt_data, fmt::format("{}: no training checkpoint", place.path));
  }
  Checkpoint out;
  try {
    const json j = json::parse(about->second);
    if (j.at("format").get<int>() != kFormat || j.at("fingerprint") != place.fingerprint) {
      throw Error(
          ErrorCode::invalid_argument,
          fmt::format("{}: a checkpoint of another model, other data or other options", place.path),
          "leave --resume out to start anew");
    }
    out.epoch = j.at("epoch").get<int64_t>();
    out.samples = j.at("samples").get<int64_t>();
    out.loss_sum = j.at("loss_sum").get<double>();
    if (out.epoch < 0 || out.samples < 0) {
      throw Error(ErrorCode::corrupt_data, fmt::format("{}: it stands nowhere", place.path));
    }
    out.best_epoch = j.at("best_epoch").get<int64_t>();
    out.best_metric = j.at("best_metric").get<double>();
    for (const json& r : j.at("epochs")) out.epochs.push_back(record_from(r));
  } catch (const json::exception& e) {
    throw Error(ErrorCode::corrupt_data, fmt::format("{}: {}", place.path, e.what()));
  }
  for (const SafetensorsEntry& entry : file.entries()) {
    out.tensors[entry.name] = file.tensor(entry.name).clone();
  }
  return out;
}

}  // namespace narrow::train
