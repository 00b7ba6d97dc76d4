// SPDX-License-Identifier: Apache-2.0
// A checkpoint as a graph of ONNX operators. Weights are initializers as they are stored (mapped,
// not copied), named as in GGUF; a product's node and output have the weight's name without
// ".weight", so that what enters it can be observed.
//
// Of a decoder (all but bert):
//   inputs   input_ids  int64 [batch, length]
//            position   int64 [batch]: tokens before these, all of them in the cache
//   output   logits     float32 [batch, rows, vocab_size], rows as `first_logit` says
//   states   with a cache: cache_k.<layer>, cache_v.<layer> [batch, kv_heads, capacity, head_dim]
//            and outputs of the same names with "_next" behind them (see state_pairs). Of int8 they
//            are codes, and cache_k.<layer>.scale, .. [batch, kv_heads, capacity, blocks] stand
//            beside them: what enters is quantized (narrow.DynamicQuantize), what attention reads
//            is DequantizeLinear of both
// No tensor of queries x keys exists: attention is told lengths and windows.
//
// Of an encoder (bert):
//   inputs   input_ids, token_types  int64 [batch, length]
//            valid_length int64 [batch]: tokens that count, the others stand behind them
//   output   hidden     float32 [batch, length, hidden_size]; rows behind those mean nothing
//
// The same as other programs expect it of an ONNX file (GraphForm::onnx), all products in float32:
//   inputs   input_ids       int64 [batch, length]
//            attention_mask  int64 [batch, total]: 1 for tokens that count, the past ones in front
//   decoder  position_ids    int64 [batch, length]
//            past_key_values.<layer>.key, .value   float32 [batch, kv_heads, past, head_dim]
//   outputs  logits          float32 [batch, length, vocab_size]
//            present.<layer>.key, .value           float32 [batch, kv_heads, total, head_dim]
//   encoder  token_type_ids  int64 [batch, length]
//   output   last_hidden_state float32 [batch, length, hidden_size]
// Tables ("token_embd.weight", [rows, columns]) and matrices ("blk.0.attn_q.weight.columns", [in,
// out]) are placeholders of zeros there that share their memory: whoever writes the file fills them
// one by one.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/llm/checkpoint.h"
#include "narrow/runtime/state.h"

namespace narrow::llm {

enum class CacheType : uint8_t { none, f32, f16, int8 };

const char* to_string(CacheType type);

/// Numbers of a head that share a scale in a cache of int8.
inline constexpr int64_t kCacheBlock = 32;

/// Keys and values of so many tokens in all layers.
uint64_t cache_bytes(const ModelConfig& config, CacheType type, int64_t tokens);

/// For GraphOptions::first_logit.
inline constexpr int64_t kLastLogit = -1;

/// What weights in blocks are multiplied with. `quantized` is many times faster (llama.cpp computes
/// so too) and changes logits a little: in blocks of 32 to 8 bits, at run time, by nodes of the
/// graph.
enum class Activations : uint8_t { quantized, real };

enum class GraphForm : uint8_t { session, onnx };

/// What the name of a placeholder of GraphForm::onnx has behind that of the tensor: [in, out].
inline constexpr std::string_view kColumns = ".columns";

struct GraphOptions {
  CacheType cache = CacheType::none;
  /// Tokens a sequence may have: the cache's rows, and the positions of rope's tables. 0: as many
  /// as the model was trained for.
  int64_t capacity = 0;
  /// Logits of the tokens from this one on; kLastLogit: of the last one alone.
  int64_t first_logit = 0;
  Activations activations = Activations::quantized;
  /// Of form onnx no other option counts but `tied_table`.
  GraphForm form = GraphForm::session;
  /// The output matrix of a model that ties it to the embedding is that table, transposed by a
  /// node; otherwise it has a placeholder of its own.
  bool tied_table = true;
};

/// Throws unsupported, or invalid_argument for a capacity that learned positions do not reach.
Graph build_graph(const Checkpoint& checkpoint, const GraphOptions& options = {});

/// For SessionOptions::states; empty without a cache.
std::vector<StatePair> state_pairs(const ModelConfig& config, const GraphOptions& options);

}  // namespace narrow::llm
