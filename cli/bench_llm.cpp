// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "llm.h"
#include "model.h"
#include "narrow/evaluate/bench.h"
#include "narrow/kernels/peaks.h"
#include "narrow/llm/speed.h"
#include "narrow/report/json.h"
#include "narrow/report/table.h"

namespace narrow::cli {
namespace {

struct Memory {
  uint64_t peak = 0;         // of the model's run alone: measuring the rate takes memory too
  double read_gb_per_s = 0;  // what the same threads can read
};

Json json_of(const llm::SpeedResult& r, const Memory& memory) {
  Json j;
  j["prefill_tokens_per_second"] = json_number(r.prefill_tokens_per_second);
  j["decode_tokens_per_second"] = json_number(r.decode_tokens_per_second);
  j["achieved_gb_per_s"] = json_number(r.achieved_gb_per_s);
  j["memory_read_gb_per_s"] = json_number(memory.read_gb_per_s);
  j["bytes_per_token"] = r.bytes_per_token;
  j["peak_rss_bytes"] = memory.peak;
  j["load_seconds"] = json_number(r.load_seconds);
  j["prompt_tokens"] = r.prompt_tokens;
  j["new_tokens"] = r.new_tokens;
  j["threads"] = r.threads;
  j["ids"] = r.ids;
  return j;
}

std::string text_of(const llm::SpeedResult& r, const Memory& memory) {
  Table table({{""}, {"tokens", Align::right}, {"tokens/s", Align::right}});
  table.add_row(
      {"prompt", format_count(r.prompt_tokens), format_fixed(r.prefill_tokens_per_second, 1)});
  table.add_row({"new", format_count(r.new_tokens), format_fixed(r.decode_tokens_per_second, 1)});
  return fmt::format(
      "{}\n{} threads; a new token reads {}: {:.1f} GB/s of the {:.1f} GB/s that memory gives\n"
      "load {:.2f} s, peak memory {}\n",
      table.text(), r.threads, format_bytes(r.bytes_per_token), r.achieved_gb_per_s,
      memory.read_gb_per_s, r.load_seconds, format_bytes(memory.peak));
}

}  // namespace

void bench_language_model(const LlmBenchFlags& flags, Context& context) {
  const llm::LanguageModel model = llm::LanguageModel::open(flags.model);
  llm::SpeedOptions options;
  options.prompt_tokens = flags.prompt_tokens;
  options.new_tokens = flags.new_tokens;
  options.rounds = flags.rounds;
  options.seed = static_cast<uint64_t>(flags.seed);
  options.progress = make_progress();
  options.decoder.threads = context.thread_count();
  options.decoder.cache = cache_of(flags.cache);
  // No more cache than these tokens take: a long context may not fit the memory.
  options.decoder.capacity =
      std::min(model.config().context, flags.prompt_tokens + flags.new_tokens);
  options.decoder.activations = activations_of(flags.compute);
  options.decoder.repack = !flags.no_repack;
  options.decoder.progress = options.progress;
  const llm::MemoryPlan plan = llm::memory_plan(model.config(), options.decoder);
  const Json said = say_memory(model.checkpoint(), plan, context);
  const llm::SpeedResult result = llm::measure_speed(model, options);
  Memory memory{peak_rss_bytes(), 0};
  memory.read_gb_per_s = kernels::measure_read(kernels::kMemoryBytes, {.threads = result.threads});
  Json j = json_of(result, memory);
  j["kv_cache"] = llm::to_string(plan.cache);
  j["memory"] = said;
  context.print(json_text(j), text_of(result, memory));
}

}  // namespace narrow::cli
