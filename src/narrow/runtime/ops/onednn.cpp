// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/onednn.h"

#if defined(NARROW_ONEDNN)

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "narrow/core/clones.h"
#include "narrow/core/cpu.h"
#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops::onednn {
namespace {

// Batch sizes and image sizes that alternate in one process; more than that is churn.
constexpr size_t kMaxShapes = 16;

/// What DNNL_MEMORY_NONE says, in a type that templates pass on: the pointer comes later.
void* const kNoMemory = nullptr;

dnnl::cpu_isa isa_cap() {
  // The best one that narrow knows is no cap: oneDNN knows more, bfloat16 for one, which a training
  // library in this process shares.
  if (active_isa() == supported_isas().front()) return dnnl::cpu_isa::all;
  switch (active_isa()) {
    case Isa::scalar:
      return dnnl::cpu_isa::sse41;  // the lowest that oneDNN offers
    case Isa::avx2:
      return dnnl::cpu_isa::avx2;
    case Isa::avx_vnni:
      return dnnl::cpu_isa::avx2_vnni;
    case Isa::avx512_vnni:
      return dnnl::cpu_isa::avx512_core_vnni;
    default:
      return dnnl::cpu_isa::all;
  }
}

dnnl::engine make_engine() {
  dnnl::set_max_cpu_isa(isa_cap());  // refused, without harm, once oneDNN has been used
  return dnnl::engine(dnnl::engine::kind::cpu, 0);
}

}  // namespace

const dnnl::engine& engine() {
  static const dnnl::engine kEngine = make_engine();
  return kEngine;
}

Refusal refuse_residual() {
  // oneDNN 2.6 adds with an instruction that needs an aligned operand, from one that need not be:
  // whether the program survives is chance.
  (void)engine();  // sets the cap
  if (dnnl::get_effective_cpu_isa() != dnnl::cpu_isa::sse41) return {};
  return "a residual needs AVX";
}

void guarded(const std::function<void()>& body) {
  try {
    body();
  } catch (const dnnl::error& error) {
    const bool memory = error.status == dnnl_out_of_memory;
    throw Error(memory ? ErrorCode::resource_exhausted : ErrorCode::internal,
                fmt::format("oneDNN: {}", error.message));
  }
}

/// Memory objects hold the pointers of one run, so each concurrent run needs its own set.
struct Prepared::Execution {
  dnnl::stream stream{engine()};
  std::vector<dnnl::memory> memories;  // arguments, then scratch
  std::vector<dnnl_exec_arg_t> raw;
  dnnl::memory own_scratch;  // only where the planned scratch is too small
};

Prepared::Prepared(dnnl::primitive primitive, std::vector<Argument> arguments,
                   std::vector<std::pair<int, dnnl::memory>> fixed, size_t scratch_bytes)
    : primitive_(std::move(primitive)),
      arguments_(std::move(arguments)),
      fixed_(std::move(fixed)),
      scratch_bytes_(scratch_bytes) {}

Prepared::~Prepared() = default;

std::unique_ptr<Prepared::Execution> Prepared::take() const {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      auto execution = std::move(idle_.back());
      idle_.pop_back();
      return execution;
    }
  }
  auto execution = std::make_unique<Execution>();
  for (const Argument& argument : arguments_) {
    execution->memories.emplace_back(argument.desc, engine(), kNoMemory);
    execution->raw.push_back({argument.id, execution->memories.back().get()});
  }
  for (const auto& [id, memory] : fixed_) execution->raw.push_back({id, memory.get()});
  if (scratch_bytes_ > 0) {
    const dnnl::memory::desc bytes({static_cast<dnnl::memory::dim>(scratch_bytes_)},
                                   dnnl::memory::data_type::u8, dnnl::memory::format_tag::a);
    execution->memories.emplace_back(bytes, engine(), kNoMemory);
    execution->raw.push_back({DNNL_ARG_SCRATCHPAD, execution->memories.back().get()});
  }
  return execution;
}

void Prepared::give_back(std::unique_ptr<Execution> execution) const {
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(execution));
}

void Prepared::run(std::span<void* const> pointers, std::span<std::byte> scratch) const {
  auto execution = take();
  for (size_t i = 0; i < pointers.size(); ++i) execution->memories[i].set_data_handle(pointers[i]);
  if (scratch_bytes_ > 0) {
    // Planned for the thread count of the planning thread; another one may need more.
    std::byte* area = scratch.data();
    if (scratch.size() < scratch_bytes_) {
      if (!execution->own_scratch) {
        execution->own_scratch = dnnl::memory(execution->memories.back().get_desc(), engine());
      }
      area = static_cast<std::byte*>(execution->own_scratch.get_data_handle());
    }
    execution->memories.back().set_data_handle(area);
  }
  guarded([&] {
    const dnnl_status_t status =
        dnnl_primitive_execute(primitive_.get(), execution->stream.get(),
                               static_cast<int>(execution->raw.size()), execution->raw.data());
    if (status != dnnl_success) throw dnnl::error(status, "a primitive could not run");
    execution->stream.wait();
  });
  note_openmp_work();
  give_back(std::move(execution));
}

std::shared_ptr<const Prepared> PreparedCache::find(
    const Key& key, const std::function<std::shared_ptr<const Prepared>()>& make) const {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const auto& entry) { return entry.first == key; });
  if (found != entries_.end()) return found->second;
  std::shared_ptr<const Prepared> prepared;
  guarded([&] { prepared = make(); });
  if (entries_.size() == kMaxShapes) entries_.erase(entries_.begin());
  entries_.emplace_back(key, prepared);
  return prepared;
}

dnnl::memory PackedWeights::in_format(const dnnl::memory::desc& wanted) const {
  const std::lock_guard lock(mutex_);
  for (const dnnl::memory& memory : formats_) {
    if (memory.get_desc() == wanted) return memory;
  }
  dnnl::memory plain(plain_desc_, engine(), const_cast<std::byte*>(plain_.raw()));
  if (wanted == plain_desc_) {  // read only, and plain_ keeps it alive
    formats_.push_back(plain);
    return plain;
  }
  dnnl::memory packed(wanted, engine());
  dnnl::stream stream(engine());
  dnnl::reorder(plain, packed).execute(stream, plain, packed);
  stream.wait();
  formats_.push_back(packed);
  return packed;
}

size_t PackedWeights::packed_bytes() const {
  const std::lock_guard lock(mutex_);
  size_t bytes = 0;
  for (const dnnl::memory& memory : formats_) {
    if (memory.get_data_handle() != plain_.raw()) bytes += memory.get_desc().get_size();
  }
  return bytes;
}

dnnl::memory::desc strided(std::span<const int64_t> dims, std::span<const int64_t> strides,
                           DataType type) {
  return {dnnl::memory::dims(dims.begin(), dims.end()), type,
          dnnl::memory::dims(strides.begin(), strides.end())};
}

dnnl::memory::desc channels_last(std::span<const int64_t> dims, DataType type) {
  return strided(dims, memory_strides(dims, Layout::channels_last), type);
}

namespace {

constexpr int64_t kRoundBlock = 65536;  // elements: some 10 us

int64_t rounded_bytes(int64_t elements) {
  return (elements * 2 + 63) / 64 * 64;
}

/// To the nearest, ties to even; NaN stays one. As to_bfloat16().
NARROW_CLONES void round_to_bfloat16(const float* x, uint16_t* y, int64_t count) {
  NARROW_SIMD
  for (int64_t i = 0; i < count; ++i) {
    const auto bits = std::bit_cast<uint32_t>(x[i]);
    const uint32_t nearest = bits + 0x7fffU + ((bits >> 16) & 1U);
    const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
    y[i] = static_cast<uint16_t>((is_nan ? bits | 0x400000U : nearest) >> 16);
  }
}

}  // namespace

bool Prepared::takes_bfloat16() const {
  return arguments_.front().desc.data_type() == DataType::bf16;
}

size_t scratch_with_source(const Prepared& prepared, int64_t elements) {
  const int64_t bytes = prepared.takes_bfloat16() ? rounded_bytes(elements) : 0;
  return prepared.scratch_bytes() + static_cast<size_t>(bytes);
}

void* source(const Prepared& prepared, const float* x, int64_t elements,
             std::span<std::byte>& scratch) {
  if (!prepared.takes_bfloat16()) return const_cast<float*>(x);
  auto* rounded = reinterpret_cast<uint16_t*>(scratch.data());
  parallel_for(elements, kRoundBlock, [&](int64_t begin, int64_t end) {
    round_to_bfloat16(x + begin, rounded + begin, end - begin);
  });
  scratch = scratch.subspan(static_cast<size_t>(rounded_bytes(elements)));
  return rounded;
}

}  // namespace narrow::ops::onednn

#endif  // NARROW_ONEDNN
