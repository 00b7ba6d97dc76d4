// SPDX-License-Identifier: Apache-2.0
// The way of a training run: for machines and as a picture.
#pragma once

#include <span>
#include <string>

#include "narrow/train/trainer.h"

namespace narrow {

/// A line for each epoch.
std::string epochs_as_csv(std::span<const train::EpochRecord> epochs);
/// {"epochs": [{"epoch": 1, "loss": ...}, ...]}
std::string epochs_as_json(std::span<const train::EpochRecord> epochs);
/// Loss over epochs, and below it the metric where there is one.
std::string epochs_as_svg(const std::string& title, std::span<const train::EpochRecord> epochs);

}  // namespace narrow
