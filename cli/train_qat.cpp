// SPDX-License-Identifier: Apache-2.0
#include "train_qat.h"

#include "narrow/core/error.h"
#include "narrow/pipeline/train_qat.h"

namespace narrow::cli {

void add_qat_flags(CLI::App& command, QatFlags& flags) {
  train::QatOptions& o = flags.options;
  command
      .add_option("--qat", flags.bits,
                  "Bits of weights and activations, as in w4a4; of language models also w3a8+kv8, "
                  "or a format of GGUF files")
      ->type_name("wNaM");
  add_choice(command, "--qat-method", flags.method, {"lsq", "lsq_plus", "pact", "dorefa", "wrpn"},
             "How grids learn (default lsq)");
  add_choice(command, "--ranges", flags.ranges, {"learned", "fixed", "moving_average"},
             "Scales by gradients, as calibrated, or by extremes (default learned)");
  add_integer(command, "--freeze-step", o.freeze_step, 0, 1000000000,
              "Ranges moving_average: the last step that moves them (default: a quarter of all)");
  add_number(command, "--range-momentum", o.range_momentum, 0, 0.999999,
             "Ranges moving_average: share that stays (default 0.99)");
  add_number(command, "--clip-decay", o.clip_decay, 0, 1000,
             "Method pact: weight of the clips' squares (default 1e-4)");
  add_number(command, "--freeze-oscillating", o.oscillation, 0, 1,
             "Freeze weights that flip more often than this (default 0: none)");
  add_choice(command, "--granularity", flags.granularity, {"per_tensor", "per_axis", "per_group"},
             "Of the weights' scales (default per_axis)");
  add_integer(command, "--group-size", flags.group_size, 0, 1 << 20, "Granularity per_group");
  add_integer(command, "--first-last", flags.first_last, 0, 8,
              "Bits of the first and last layer (default 0: as the others)");
}

void apply_qat_flags(const QatFlags& flags, TrainJob& job) {
  job.qat = flags.bits;
  // Of language models there are more: check_llm_training().
  if (!job.qat.empty() && job.data.kind != "text") parse_qat(job.qat);
  job.options.qat = flags.options;
  job.options.qat.method = *train::qat_method_from_string(flags.method);
  job.options.qat.ranges = *train::range_from_string(flags.ranges);
  job.options.qat.oscillation_start = std::max(0.1, flags.options.oscillation);
  job.granularity = granularity_from_string(flags.granularity);
  if (flags.group_size > 0) job.granularity = Granularity::per_group;
  job.group_size = flags.group_size;
  if (job.granularity == Granularity::per_group && flags.group_size == 0) {
    throw Error(ErrorCode::invalid_argument, "per_group needs the size of the groups",
                "add --group-size 32");
  }
  job.first_last = static_cast<int>(flags.first_last);
  if (job.first_last == 1) {
    throw Error(ErrorCode::invalid_argument, "--first-last is 1, not 2..8");
  }
}

}  // namespace narrow::cli
