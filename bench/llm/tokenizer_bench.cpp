// SPDX-License-Identifier: Apache-2.0
// Megabytes of text a second, on one thread: the real tokenizers of NARROW_ASSETS over its text,
// and the small ones of the tests over theirs repeated.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "narrow/core/file.h"
#include "narrow/llm/tokenizer/tokenizer.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"

namespace narrow::llm {
namespace {

namespace fs = std::filesystem;

void encode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text,
            bool cold) {
  size_t ids = 0;
  for (auto _ : state) {
    // A new tokenizer has met no word yet: what the first prompt of a program sees.
    state.PauseTiming();
    const Tokenizer fresh = cold ? Tokenizer(tokenizer.data()) : tokenizer;
    state.ResumeTiming();
    ids = fresh.encode(text).size();
  }
  state.counters["MB/s"] = benchmark::Counter(1e-6 * static_cast<double>(text.size()),
                                              benchmark::Counter::kIsIterationInvariantRate);
  state.counters["bytes/id"] = static_cast<double>(text.size()) / static_cast<double>(ids);
}

void decode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  const auto ids = tokenizer.encode(text);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.decode(ids));
  state.counters["MB/s"] = benchmark::Counter(1e-6 * static_cast<double>(text.size()),
                                              benchmark::Counter::kIsIterationInvariantRate);
}

void add(const std::string& name, const fs::path& file, const std::string& text) {
  const Tokenizer tokenizer(read_tokenizer(file));
  for (const bool cold : {true, false}) {
    benchmark::RegisterBenchmark(
        (name + (cold ? "/encode_cold" : "/encode")).c_str(),
        [=](benchmark::State& state) { encode(state, tokenizer, text, cold); })
        ->Unit(benchmark::kMillisecond);
  }
  benchmark::RegisterBenchmark((name + "/decode").c_str(), [=](benchmark::State& state) {
    decode(state, tokenizer, text);
  })->Unit(benchmark::kMillisecond);
}

const int registered = [] {
  const char* folder = std::getenv("NARROW_ASSETS");
  if (folder == nullptr) return 0;  // no text, no numbers
  const fs::path assets(folder);
  const std::string text = read_text(assets / "novels-7m/heldout.txt");
  add("bytes_novels", assets / "novels-7m/tokenizer.json", text);
  add("spm_bpe_llama2", assets / "llama2-tokenizer/tokenizer.model", text);
  const fs::path goldens = fs::path(NARROW_SOURCE_DIR) / "tests/goldens/tokenizers";
  for (const char* name :
       {"bytes_gpt2.json", "bytes_llama3.json", "bytes_o200k.json", "characters_llama.json",
        "wordpiece_bert.json", "unigram.json", "spm_unigram.model"}) {
    add(fs::path(name).stem().string(), goldens / name, text);
  }
  return 0;
}();

}  // namespace
}  // namespace narrow::llm
