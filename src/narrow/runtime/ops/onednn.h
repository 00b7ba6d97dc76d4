// SPDX-License-Identifier: Apache-2.0
// The part of oneDNN that steps share: one engine under the program's instruction-set cap, and
// primitives prepared once per input shape. Compiled empty where the build has no oneDNN.
#pragma once

#if defined(NARROW_ONEDNN)

#include <functional>
#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <span>
#include <string_view>
#include <vector>

#include "narrow/runtime/op_impl.h"

namespace narrow::ops::onednn {

/// The CPU engine. The first call caps oneDNN's instruction set by active_isa(); oneDNN keeps that
/// cap for the life of the process.
const dnnl::engine& engine();

/// Why a convolution cannot take a residual as post-operation; empty: it can.
Refusal refuse_residual();

/// Runs body; a dnnl::error becomes an Error.
void guarded(const std::function<void()>& body);

/// An argument of a primitive: its number (DNNL_ARG_SRC, ...) and how its memory looks.
struct Argument {
  int id;
  dnnl::memory::desc desc;
};

/// A primitive with everything that does not change from run to run. Several threads may run it.
class Prepared {
 public:
  /// `fixed` are arguments with memory of their own (packed weights).
  Prepared(dnnl::primitive primitive, std::vector<Argument> arguments,
           std::vector<std::pair<int, dnnl::memory>> fixed, size_t scratch_bytes);
  ~Prepared();
  /// Pointers in the order of `arguments`; scratch holds scratch_bytes() at least, or memory is
  /// taken for it.
  void run(std::span<void* const> pointers, std::span<std::byte> scratch) const;
  size_t scratch_bytes() const { return scratch_bytes_; }
  /// Whether the first argument is bfloat16.
  bool takes_bfloat16() const;

 private:
  struct Execution;
  std::unique_ptr<Execution> take() const;
  void give_back(std::unique_ptr<Execution> execution) const;

  dnnl::primitive primitive_;
  std::vector<Argument> arguments_;
  std::vector<std::pair<int, dnnl::memory>> fixed_;
  size_t scratch_bytes_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Execution>> idle_;  // guarded by mutex_
};

/// Primitives by shape and thread count, made when first asked for. A handful of shapes is usual;
/// the oldest goes when there are too many.
class PreparedCache {
 public:
  using Key = std::vector<int64_t>;
  std::shared_ptr<const Prepared> find(
      const Key& key, const std::function<std::shared_ptr<const Prepared>()>& make) const;

 private:
  mutable std::mutex mutex_;
  mutable std::vector<std::pair<Key, std::shared_ptr<const Prepared>>> entries_;
};

/// Constant weights in each format that a primitive asked for. The plain form is shared with the
/// graph.
class PackedWeights {
 public:
  PackedWeights() = default;
  PackedWeights(Tensor plain, dnnl::memory::desc plain_desc)
      : plain_(std::move(plain)), plain_desc_(std::move(plain_desc)) {}
  dnnl::memory in_format(const dnnl::memory::desc& wanted) const;
  size_t packed_bytes() const;

 private:
  Tensor plain_;
  dnnl::memory::desc plain_desc_;
  mutable std::mutex mutex_;
  mutable std::vector<dnnl::memory> formats_;
};

using DataType = dnnl::memory::data_type;

/// The descriptor of a value [N, C, spatial...] in channels_last memory.
dnnl::memory::desc channels_last(std::span<const int64_t> dims, DataType type = DataType::f32);
/// ... with explicit strides.
dnnl::memory::desc strided(std::span<const int64_t> dims, std::span<const int64_t> strides,
                           DataType type = DataType::f32);

/// The primitive that `make` gives for bfloat16 operands if that is wanted and oneDNN has fast code
/// for it, else for float32.
template <class Make>
auto choose_type(bool bfloat16, const Make& make) {
  if (bfloat16) {
    try {
      auto pd = make(DataType::bf16);
      // "ref:any" and the like are plain loops.
      if (std::string_view(pd.impl_info_str()).find("ref") == std::string_view::npos) return pd;
    } catch (const dnnl::error&) {
      // not there for these shapes
    }
  }
  return make(DataType::f32);
}

/// Scratch of a step whose first operand has that many elements.
size_t scratch_with_source(const Prepared& prepared, int64_t elements);
/// Rounds the operand into the front of the scratch if the primitive wants it so; gives where it is
/// now and leaves the rest of the scratch.
void* source(const Prepared& prepared, const float* x, int64_t elements,
             std::span<std::byte>& scratch);

}  // namespace narrow::ops::onednn

#endif  // NARROW_ONEDNN
