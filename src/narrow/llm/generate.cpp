// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/generate.h"

#include <algorithm>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"

namespace narrow::llm {
namespace {

/// How much of the end of `text` is the beginning of `stop`, but not all of it.
size_t overlap(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.ends_with(stop.substr(0, n))) return n;
  }
  return 0;
}

}  // namespace

StopFilter::StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& s) { return s.empty(); });
}

std::string StopFilter::push(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  size_t found = std::string::npos;
  size_t hold = 0;
  for (const std::string& stop : stops_) {
    found = std::min(found, held_.find(stop));
    hold = std::max(hold, overlap(held_, stop));
  }
  if (found != std::string::npos) {
    stopped_ = true;
    std::string before = held_.substr(0, found);
    held_.clear();
    return before;
  }
  std::string certain = held_.substr(0, held_.size() - hold);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopFilter::finish() {
  return std::exchange(held_, {});
}

const char* to_string(Finish finish) {
  static constexpr const char* kNames[] = {"end", "stop", "length", "capacity", "cancelled"};
  return kNames[static_cast<size_t>(finish)];
}

GenerateResult generate(const CachedDecoder& decoder, Sequence& sequence,
                        const Tokenizer& tokenizer, std::span<const int32_t> prompt,
                        const GenerateOptions& options, const OnText& on_text,
                        const Progress& progress) {
  Sampler sampler(options.sampling);
  StreamDecoder stream(tokenizer);
  StopFilter filter(options.stop);
  GenerateResult result;
  result.prompt_tokens = static_cast<int64_t>(prompt.size());
  std::vector<int32_t> seen(prompt.begin(), prompt.end());
  const auto say = [&](const std::string& text) {
    result.text += text;
    return text.empty() || !on_text || on_text(text);
  };
  const auto ends = [&](int32_t id) {
    return !options.ignore_ends &&
           (tokenizer.is_end(id) ||
            std::find(options.ends.begin(), options.ends.end(), id) != options.ends.end());
  };
  auto start = Clock::now();
  Tensor logits = decoder.feed(sequence, prompt);
  while (static_cast<int64_t>(result.ids.size()) < options.tokens) {
    progress.check_cancelled();
    const int32_t id = sampler.pick(logits.data<float>(), seen);
    if (result.ids.empty()) {
      result.prompt_seconds = seconds_since(start);
      start = Clock::now();
    }
    result.ids.push_back(id);
    seen.push_back(id);
    if (ends(id)) {
      result.finish = Finish::end;
      break;
    }
    if (!say(filter.push(stream.push(id)))) {
      result.finish = Finish::cancelled;
      break;
    }
    if (filter.stopped()) {
      result.finish = Finish::stop;
      break;
    }
    if (static_cast<int64_t>(result.ids.size()) == options.tokens) break;
    if (sequence.length() >= decoder.capacity()) {
      result.finish = Finish::capacity;
      break;
    }
    logits = decoder.feed(sequence, std::span(&id, 1));
  }
  if (!result.ids.empty()) result.generate_seconds = seconds_since(start);
  if (result.finish != Finish::cancelled && !filter.stopped()) {
    say(filter.push(stream.finish()));
    say(filter.finish());
  }
  return result;
}

}  // namespace narrow::llm
