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
}

void set_prune_options(const PruneFlags& flags, train::TrainOptions& options) {
  if (!flags.prune.empty()) options.prune = train::parse_prune(flags.prune);
  if (!flags.regularize.empty()) options.regularize = train::parse_regularize(flags.regularize);
}

}  // namespace narrow::cli
