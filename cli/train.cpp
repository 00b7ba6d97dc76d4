// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <memory>

#include "commands.h"
#include "model.h"
#include "narrow/core/error.h"
#include "narrow/pipeline/train.h"
#include "narrow/pipeline/train_text.h"
#include "train_llm.h"
#include "train_prune.h"
#include "train_qat.h"
#include "train_schedule.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nExamples:\n"
    "  narrow train --arch mnist_cnn -o cnn.onnx --data mnist:DIR,split=train "
    "--eval-data mnist:DIR --epochs 10\n"
    "  narrow train cnn.onnx -o cnn-w4a4.onnx --qat w4a4 --data mnist:DIR,split=train "
    "--eval-data mnist:DIR --epochs 3 --lr 1e-4 --schedule cosine\n"
    "  narrow train cnn.onnx -o cnn-w2a2.onnx --qat w2a2 --loss distill --data "
    "mnist:DIR,split=train\n"
    "  narrow train cnn.onnx -o sparse.onnx --prune magnitude,sparsity=0.8 --qat w8a8 --data "
    "mnist:DIR,split=train --eval-data mnist:DIR --epochs 4 --lr 3e-4\n"
    "  narrow train ./llama -o llama-w3.gguf --qat w3 --loss distill --data text:novels.txt "
    "--eval-data text:heldout.txt,chunks=40\n";

struct TrainFlags {
  std::string model;
  ModelFlags network;
  std::string output;
  std::string data;
  std::string eval_data;
  std::string teacher;
  std::vector<std::string> match;
  std::string optimizer = "adam";
  std::string schedule = "constant";
  std::string compute = "float32";
  std::string loss = "cross_entropy";
  QatFlags qat_flags;
  std::string checkpoint;
  std::string log;
  std::string plot;
  PruneFlags prune;
  int64_t seed = 1;
  bool resume = false;
  bool keep_norms = false;
  bool dry_run = false;
  int64_t checkpoint_steps = 0;
  AdapterFlags adapters;
  train::TrainOptions options;
};

void run_train_command(const TrainFlags& flags, Context& context) {
  if (flags.model.empty() == flags.network.arch.empty()) {
    throw Error(ErrorCode::invalid_argument, "one of MODEL and --arch is needed",
                "name a model to train on, or a network to train from scratch");
  }
  const bool adapters_alone = is_text_spec(flags.data) && !flags.adapters.output.empty();
  if (flags.output.empty() && !adapters_alone) {
    throw Error(ErrorCode::invalid_argument, "-o is missing", "name the file to write");
  }
  if (!flags.output.empty()) check_output_path(flags.output);
  TrainJob job;
  job.model = flags.model;
  job.arch = flags.network.arch;
  job.tokenizer = flags.network.tokenizer;
  job.statistics = flags.network.statistics;
  job.output = flags.output;
  const auto data_of = [](const std::string& spec) {
    return is_text_spec(spec) ? parse_text_spec(spec) : parse_data_spec(spec);
  };
  job.data = data_of(flags.data);
  if (!flags.eval_data.empty()) job.eval_data = data_of(flags.eval_data);
  job.teacher = flags.teacher;
  job.options = flags.options;
  job.options.optimizer = *train::optimizer_from_string(flags.optimizer);
  const bool phases = names_schedule_file(flags.schedule);
  if (!phases) job.options.schedule = *train::schedule_from_string(flags.schedule);
  job.options.loss = *train::loss_from_string(flags.loss);
  for (const std::string& pair : flags.match) {
    job.options.match.pairs.push_back(train::parse_feature_pair(pair));
  }
  apply_qat_flags(flags.qat_flags, job);
  set_adapter_options(flags.adapters, job);
  check_llm_training(job);
  if (job.data.kind != "text") check_onnx_output(flags.output);
  job.options.seed = static_cast<uint64_t>(flags.seed);
  job.options.bfloat16 = flags.compute == "bfloat16";
  job.options.threads = context.thread_count();
  set_prune_options(flags.prune, job);
  for (const std::string& file : {flags.checkpoint, flags.log, flags.plot}) {
    if (!file.empty()) check_output_path(file);
  }
  job.checkpoint = flags.checkpoint;
  job.log = flags.log;
  job.plot = flags.plot;
  job.resume = flags.resume;
  job.keep_norms = flags.keep_norms;
  job.checkpoint_steps = flags.checkpoint_steps;
  job.progress = make_progress();
  if (!context.json) {
    const bool text = is_text_spec(flags.data);
    const bool distills = job.options.loss != train::LossKind::cross_entropy;
    job.epoch = [text, distills](const train::EpochRecord& r) {
      std::string metric;
      if (r.metric) {
        metric = text ? fmt::format(", {} {:.5f}", distills ? "kl" : "perplexity", *r.metric)
                      : fmt::format(", top1 {:.2f} %", *r.metric);
      }
      write_stderr(fmt::format("epoch {}: loss {:.4f}{}, {:.0f} samples/s", r.epoch, r.loss, metric,
                               r.samples_per_second));
    };
  }
  if (flags.dry_run || phases) {
    run_phases(phases ? flags.schedule : "", job, flags.dry_run, context);
    return;
  }
  const TrainReport report = run_train(job);
  if (report.rank == 0) context.print(to_json(report), to_text(report));
}

void add_optimizer_flags(CLI::App& command, TrainFlags& flags) {
  train::TrainOptions& o = flags.options;
  constexpr double kLarge = 1e9;
  add_integer(command, "--epochs", o.epochs, 0, 1000000,
              "Times through the data (default 10; of a text 1); 0: only remove weights");
  add_integer(command, "--batch", o.batch, 1, 1000000,
              "Samples of a batch (default 100; of a text 4)");
  add_integer(command, "--accumulate", o.accumulate, 1, 1000000, "Batches of a step (default 1)");
  add_choice(command, "--optimizer", flags.optimizer, {"sgd", "adam", "adamw"}, "Default adam");
  add_number(command, "--lr", o.lr, 0, 1000, "Learning rate (default 1e-3)");
  add_number(command, "--scale-lr", o.scale_lr, 0, 1000000,
             "Learning rate of scales, times that of the rest (default 1)");
  add_number(command, "--momentum", o.momentum, 0, 1, "Of sgd (default 0.9)");
  add_number(command, "--weight-decay", o.weight_decay, 0, 1000, "Of kernels and matrices");
  add_number(command, "--clip-norm", o.clip_norm, 0, kLarge, "Largest norm of the gradients");
  command
      .add_option("--schedule", flags.schedule,
                  "How the learning rate falls: constant, step, cosine (default constant); or a "
                  "YAML file of phases")
      ->type_name("NAME|FILE");
  command.add_flag("--dry-run", flags.dry_run, "Say what would be done, and stop");
  add_integer(command, "--warmup-steps", o.warmup_steps, 0, 1000000000, "Steps of rising rate");
  add_integer(command, "--step-epochs", o.step_epochs, 1, 1000000, "Schedule step: epochs a step");
  add_number(command, "--gamma", o.gamma, 0, 1, "Schedule step: factor (default 0.1)");
  command
      .add_option("--device", o.device,
                  "Where the network is computed: cpu, cuda or cuda:N (default cpu)")
      ->type_name("DEVICE");
  add_choice(command, "--compute", flags.compute, {"float32", "bfloat16"},
             "Operands of convolutions and matrix products (default float32)");
  command.add_flag("--keep-norms", flags.keep_norms,
                   "Write a float model with its batch norms, which later training wants");
  add_integer(command, "--norm-freeze", o.norm_freeze, 0, 1000000,
              "Batch norms keep their running statistics after so many epochs (default 0: never)");
  add_integer(command, "--norm-batches", o.norm_batches, 0, 1000000000,
              "Batches that statistics of batch norms are estimated on again after each epoch "
              "(default 0: none)");
  add_number(command, "--ema", o.ema, 0, 0.999999, "Decay of averaged parameters; 0: off");
  add_integer(command, "--patience", o.patience, 0, 1000000000,
              "Stop after so many epochs without a better metric");
  add_integer(command, "--seed", flags.seed, 0, int64_t{1} << 53, "Of order, weights and changes");
}

void add_loss_flags(CLI::App& command, TrainFlags& flags) {
  train::TrainOptions& o = flags.options;
  add_choice(command, "--loss", flags.loss, {"cross_entropy", "mse", "distill"},
             "To labels, or to the teacher's outputs (default cross_entropy)");
  command.add_option("--teacher", flags.teacher, "Of mse and distill (default: the float model)")
      ->type_name("MODEL");
  add_number(command, "--temperature", o.temperature, 0.01, 1000,
             "Of distill (default 4; of language models 1)");
  add_number(command, "--distill-weight", o.distill_weight, 0, 1,
             "Share of the teacher, the rest being the labels' (default 1)");
  command
      .add_option(
          "--match", flags.match,
          "Layers whose outputs learn those of the teacher's, by the names of nodes or values")
      ->type_name("NAME[=TEACHER'S]");
  add_number(command, "--match-weight", o.match.weight, 0, 1e6, "Of that in the loss (default 1)");
  add_number(command, "--label-smoothing", o.label_smoothing, 0, 0.999, "Default 0");
  train::Augmentation& a = o.augment;
  add_integer(command, "--crop", a.crop, 0, 1000,
              "Stretch windows smaller by up to so many pixels");
  add_integer(command, "--shift", a.shift, 0, 1000, "Move images by up to so many pixels");
  command.add_flag("--flip", a.flip, "Mirror every other image");
}

}  // namespace

void add_train(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("train", "Train a network, in float or on the grids it is deployed on");
  auto flags = std::make_shared<TrainFlags>();
  command->add_option("model", flags->model, "The model to train on")->type_name("MODEL");
  add_model_flags(*command, flags->network);
  command->add_option("-o,--output", flags->output, "The model to write")->type_name("FILE");
  add_data(*command, flags->data, "Data to train on")->required();
  command->add_option("--eval-data", flags->eval_data, "Data to measure on after each epoch")
      ->type_name("SPEC");
  add_qat_flags(*command, flags->qat_flags);
  add_optimizer_flags(*command, *flags);
  add_adapter_flags(*command, flags->adapters);
  add_loss_flags(*command, *flags);
  add_prune_flags(*command, flags->prune);
  command
      ->add_option("--checkpoint", flags->checkpoint,
                   "Kept after each epoch (default: beside the output while it trains)")
      ->type_name("FILE");
  add_integer(*command, "--checkpoint-steps", flags->checkpoint_steps, 0, 1000000000,
              "Also after so many steps (default 0: not)");
  command->add_flag("--resume", flags->resume, "Go on from the checkpoint of a run that ended");
  command->add_option("--log", flags->log, "The epochs, as CSV or as .json")->type_name("FILE");
  command->add_option("--plot", flags->plot, "Loss and metric over epochs")->type_name("SVG");
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback([flags, command, &context] {
    if (is_text_spec(flags->data)) {
      set_llm_defaults(*command, flags->options);
      if (command->count("--schedule") == 0) flags->schedule = "cosine";
    }
    context.run = [flags, &context] { run_train_command(*flags, context); };
  });
}

}  // namespace narrow::cli
