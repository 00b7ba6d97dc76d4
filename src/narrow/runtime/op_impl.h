// SPDX-License-Identifier: Apache-2.0
// How an operator runs: rows {name, accepts, create} in tables by operator, best first, the plain
// reference last. accepts() returns a reason on refusal, which `narrow kernels` prints.
//
// A Step is made once per node at load time (weights are packed there) and run many times, possibly
// by several threads at once on different data: it holds no mutable state.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/graph/graph.h"

namespace narrow {

/// Memory order of a value of rank 4 (or 3, 5): logical dims are always NCHW.
enum class Layout : uint8_t {
  plain,          // as the logical dims say, row-major
  channels_last,  // NHWC in memory
};
const char* to_string(Layout layout);

/// One operand while a step runs: logical shape, memory order, bytes.
struct TensorView {
  DType dtype = DType::undefined;
  Dims dims;  // logical (NCHW) also when the memory is channels_last
  Layout layout = Layout::plain;
  std::byte* data = nullptr;

  int64_t elements() const { return num_elements(dims); }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
};

struct RunOptions;

/// What a step sees while it runs. Operands that are not constants have a spare vector of 64 bytes
/// behind them: it may be read, holds anything, and must not be written.
struct RunContext {
  std::span<const TensorView> inputs;  // data == nullptr: absent
  std::span<TensorView> outputs;       // shapes known and memory there, unless the step is dynamic
  std::span<std::byte> scratch;  // 64-byte aligned, as many bytes as scratch_bytes() asked for
  /// Of the run that this step is a part of, for steps that run subgraphs; may be null.
  const RunOptions* run_options = nullptr;
  /// For steps with data-dependent output shapes: gives output i its dims and memory.
  virtual TensorView& allocate_output(size_t i, Dims dims) = 0;

 protected:
  ~RunContext() = default;
};

class Step {
 public:
  virtual ~Step() = default;
  virtual void run(RunContext& context) const = 0;
  /// For concrete input shapes; kernels never allocate.
  virtual size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims> outputs) const {
    (void)inputs;
    (void)outputs;
    return 0;
  }
  /// Layout wanted for input i when values of rank >= 3 may be channels_last.
  virtual Layout input_layout(size_t i) const {
    (void)i;
    return Layout::plain;
  }
  virtual Layout output_layout(size_t i) const {
    (void)i;
    return Layout::plain;
  }
  /// true: runs with any one layout common to all its rank-4 operands (elementwise work), and hands
  /// that layout on.
  virtual bool layout_agnostic() const { return false; }
  /// Output i may share the memory of input j (elementwise, reshape): j, or -1.
  virtual int aliases(size_t output) const {
    (void)output;
    return -1;
  }
  /// true: the output shapes depend on data; run() calls allocate_output().
  virtual bool dynamic_outputs() const { return false; }
  /// Multiply-adds for concrete shapes, and whether they are integer x integer.
  virtual int64_t macs(std::span<const Dims> inputs, std::span<const Dims> outputs) const {
    (void)inputs;
    (void)outputs;
    return 0;
  }
  virtual bool integer_macs() const { return false; }
  /// Bytes of weights held in kernel layout.
  virtual size_t packed_bytes() const { return 0; }
};

/// Options of the plan that implementations look at.
struct StepOptions {
  bool deterministic_reference = false;  // only `reference` rows: the specification run
  bool bfloat16 = false;  // products of operands rounded to bfloat16, where a row can
  bool repack = true;     // off: weights stay where they are, mapped, and kernels read them there
};

/// Empty: accepted. Otherwise why not.
using Refusal = std::string;

struct OpImpl {
  const char* domain;
  const char* op;
  const char* name;  // "avx512_vnni:igemm", "onednn", "reference"
  Refusal (*accepts)(const Graph&, const Node&, const StepOptions&);
  std::unique_ptr<Step> (*create)(const Graph&, const Node&, const StepOptions&);
};

/// All rows for an operator, best first. Filled from the static tables of runtime/ops/*.cpp.
std::vector<const OpImpl*> implementations(std::string_view domain, std::string_view op);

/// Which row a node got, and why the better ones refused.
struct KernelChoice {
  std::string node;
  std::string op;
  std::string chosen;
  std::vector<std::pair<std::string, std::string>> refused;  // name, reason
};

}  // namespace narrow
