// SPDX-License-Identifier: Apache-2.0
#include "train_prune.h"

namespace narrow::cli {

void add_prune_flags(CLI::App& command, PruneFlags& flags) {
  command
      .add_option("--prune", flags.prune,
                  "magnitude|level|sensitivity|splicing|movement|keep[,sparsity=S][,scope=global|"
                  "layer][,pattern=2:4|1x4][,layers=GLOB][,start=..,end=..,frequency=..]")
      ->type_name("METHOD,..");
  command
      .add_option("--regularize", flags.regularize,
                  "Penalties: l1=X[,group_lasso=X][,groups=filters|channels][,layers=GLOB]")
      ->type_name("KEY=X,..");
  command
      .add_option("--thin", flags.thin,
                  "Remove filters first: l1|apoz|gradient|taylor,macs=SHARE or ratio=SHARE"
                  "[,align=8][,layers=GLOB][,except=GLOB]; of language models l1|gradient|taylor"
                  "[,heads=SHARE][,kv_heads=SHARE][,ff=SHARE][,blocks=N]")
      ->type_name("RANK,..");
  command
      .add_option("--low-rank", flags.low_rank,
                  "Factor dense layers and 1x1 convolutions first: ratio=SHARE or energy=SHARE"
                  "[,layers=GLOB]")
      ->type_name("KEY=X,..");
}

void set_prune_options(const PruneFlags& flags, TrainJob& job) {
  train::TrainOptions& options = job.options;
  if (!flags.prune.empty()) options.prune = train::parse_prune(flags.prune);
  if (!flags.regularize.empty()) options.regularize = train::parse_regularize(flags.regularize);
  if (!flags.thin.empty()) job.thin = train::parse_thin(flags.thin);
  if (!flags.low_rank.empty()) job.low_rank = train::parse_low_rank(flags.low_rank);
}

}  // namespace narrow::cli
