// SPDX-License-Identifier: Apache-2.0
// The architectures that are known: one row each, with the table of its tensors' names. Tensors go
// by GGUF's names everywhere in narrow; "{}" stands for the number of a layer.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "narrow/core/shape.h"
#include "narrow/llm/config.h"

namespace narrow::llm {

/// A dimension of a tensor, from the config.
enum class Size : uint8_t {
  none,
  vocab,
  hidden,
  q,
  kv,
  qkv,
  head,
  ffn,
  context,
  token_types,
  rope_pairs
};

/// When a model has a tensor.
enum class Need : uint8_t {
  always,
  untied,
  qkv_bias,
  output_bias,
  ffn_bias,
  qk_norm,
  rope_divisors,
};

/// How a Hugging Face file's tensor differs from GGUF's.
enum class Difference : uint8_t {
  none,
  rotation_q,  // rows of a head: (i, i + d/2) rotate together, in GGUF (2i, 2i + 1)
  rotation_k,
  transposed,  // [in, out] instead of [out, in]
  minus_one,   // stored less one (norms of gemma)
  computed,    // in no Hugging Face file: follows from the config
};

struct TensorRow {
  std::string_view gguf;
  std::string_view hf;  // behind the model's prefix; from a "/" on the whole name
  Size rows = Size::none;
  Size columns = Size::none;  // none: a vector of `rows` elements
  Need need = Need::always;
  Difference difference = Difference::none;
};

struct Architecture {
  std::string_view name;                       // GGUF's general.architecture
  std::span<const std::string_view> hf_types;  // config.json's model_type; the first is written
  std::string_view hf_class;                   // config.json's architectures, when written
  std::string_view special;                    // for people: what sets it apart
  std::span<const std::string_view> prefixes;  // of Hugging Face's names, one of them
  std::span<const std::string_view> unused;    // parts of names of tensors that are not needed
  std::span<const TensorRow> tensors;
  bool gguf_interleaved = false;  // rope_interleaved of GGUF files
  int64_t gguf_local_period = 0;  // layers with (i + 1) % period != 0 are local when no key says so
  bool scales_embedding = false;  // embedding_scale is sqrt(hidden_size)
};

std::span<const Architecture> architectures();
/// Null for a name (GGUF's, or one of Hugging Face's) that is not known.
const Architecture* find_architecture(std::string_view gguf_name);
const Architecture* find_hf_architecture(std::string_view model_type);
/// Throws unsupported with the list of known ones. `asked` is what the model says.
[[noreturn]] void unknown_architecture(std::string_view asked);

/// Does the model have this tensor?
bool needs(const ModelConfig& config, const TensorRow& row);
/// Its dims, rows first.
Dims dims_of(const ModelConfig& config, const TensorRow& row);
/// "heads * head_dim = 64", for errors.
std::string describe(const ModelConfig& config, Size size);
/// f(row, layer) for each tensor that the model has, in the model's order; the layer is 0 outside
/// of layers.
void for_each_tensor(const ModelConfig& config,
                     const std::function<void(const TensorRow& row, int64_t layer)>& f);
/// "{}" replaced.
std::string name_of(std::string_view pattern, int64_t layer);

}  // namespace narrow::llm
