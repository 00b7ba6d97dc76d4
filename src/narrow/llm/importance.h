// SPDX-License-Identifier: Apache-2.0
// What meets each weight matrix: the mean square of its inputs, column by column, over a text. A
// weight's rounding error counts with it in the product's error: E |(W - W')x|^2 is about
// sum_k (w_k - w'_k)^2 E[x_k^2] where columns are uncorrelated (as in llama.cpp's importance
// matrix, whose files these are: formats/gguf/importance.h).
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "narrow/core/progress.h"
#include "narrow/formats/gguf/importance.h"
#include "narrow/llm/language_model.h"

namespace narrow::llm {

struct ImportanceOptions {
  int64_t context = 512;  // tokens of a chunk; a rest is dropped
  int64_t chunks = 0;     // at most so many; 0: all
  int32_t bos = -1;       // replaces the first token of each chunk; -1: none
  int threads = 0;
  /// Called every `save_every` chunks with what there is so far; may be empty.
  std::function<void(const ImportanceFile&)> save;
  int64_t save_every = 32;
};

/// Adds the chunks from statistics.chunk_count on to `statistics`, which is empty or what an
/// earlier run over the same ids left: going on gives the same numbers as one run. The output
/// matrix is left out: it would see every token's logits computed. Throws invalid_argument for a
/// text shorter than a chunk, or statistics of another model or chunk size.
void collect_importance(const LanguageModel& model, std::span<const int32_t> ids,
                        const ImportanceOptions& options, ImportanceFile& statistics,
                        const Progress& progress = {});

/// Adds the sums of `other`, of another text, to `statistics`. Throws invalid_argument where they
/// are of different models.
void merge_importance(ImportanceFile& statistics, const ImportanceFile& other);

}  // namespace narrow::llm
