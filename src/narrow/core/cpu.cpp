// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/cpu.h"

#include <cpuinfo.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "narrow/core/error.h"

namespace narrow {
namespace {

constexpr std::array kNames = {"scalar",   "avx2", "avx_vnni",     "avx512_vnni",
                               "amx_int8", "neon", "neon_dotprod", "neon_i8mm"};
constexpr int kUnset = -1;
std::atomic<int> g_cap{kUnset};

#if defined(__x86_64__)
// Debian's cpuinfo knows neither AVX-VNNI nor AMX: these two are read here, with the state that the
// operating system saves (XCR0) and, for AMX, its permission.
uint64_t xcr0() {
  uint32_t a = 0;
  uint32_t d = 0;
  __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  return (static_cast<uint64_t>(d) << 32) | a;
}

bool has_avx_vnni() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  return cpuinfo_has_x86_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 4));
}

bool has_avx512_vnni() {
  return cpuinfo_has_x86_avx512f() && cpuinfo_has_x86_avx512bw() && cpuinfo_has_x86_avx512vl() &&
         cpuinfo_has_x86_avx512dq() && cpuinfo_has_x86_avx512vnni();
}

bool has_amx_int8() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (!has_avx512_vnni() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool cpu = (d & (1u << 24)) && (d & (1u << 25));  // AMX-TILE, AMX-INT8
  constexpr uint64_t kTileState = (uint64_t{1} << 17) | (uint64_t{1} << 18);
  if (!cpu || (xcr0() & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  return ::syscall(SYS_arch_prctl, kRequestPermission, 18) == 0;
}
#endif

bool detect(Isa isa) {
  if (isa == Isa::scalar) return true;
  if (!cpuinfo_initialize()) return false;
  switch (isa) {
#if defined(__x86_64__)
    case Isa::avx2:
      return cpuinfo_has_x86_avx2() && cpuinfo_has_x86_f16c() && cpuinfo_has_x86_fma3();
    case Isa::avx_vnni:
      return has_avx_vnni();
    case Isa::avx512_vnni:
      return has_avx512_vnni();
    case Isa::amx_int8:
      return has_amx_int8();
#elif defined(__aarch64__)
    case Isa::neon:
      return true;
    case Isa::neon_dotprod:
      return cpuinfo_has_arm_neon_dot();
    case Isa::neon_i8mm:
      return cpuinfo_has_arm_i8mm();
#endif
    default:
      return false;
  }
}

Isa from_environment() {
  const char* name = std::getenv("NARROW_ISA");
  if (name == nullptr || *name == '\0') return supported_isas().front();
  const auto isa = isa_from_string(name);
  if (!isa) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("NARROW_ISA names no instruction set: '{}'", name),
                fmt::format("use one of {}", fmt::join(kNames, ", ")));
  }
  if (!cpu_supports(*isa)) {
    throw Error(ErrorCode::unsupported,
                fmt::format("NARROW_ISA asks for {}, which this CPU lacks", name),
                "unset NARROW_ISA to use the best one");
  }
  return *isa;
}

}  // namespace

const char* to_string(Isa isa) {
  return kNames[static_cast<size_t>(isa)];
}

std::optional<Isa> isa_from_string(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) return static_cast<Isa>(i);
  }
  return std::nullopt;
}

bool cpu_supports(Isa isa) {
  static const auto supported = [] {
    std::array<bool, kNames.size()> s{};
    for (size_t i = 0; i < s.size(); ++i) s[i] = detect(static_cast<Isa>(i));
    return s;
  }();
  return supported[static_cast<size_t>(isa)];
}

bool cpu_multiplies_bfloat16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> out;
  for (size_t i = kNames.size(); i-- > 0;) {
    if (cpu_supports(static_cast<Isa>(i))) out.push_back(static_cast<Isa>(i));
  }
  return out;
}

Isa active_isa() {
  int cap = g_cap.load();
  if (cap == kUnset) {
    cap = static_cast<int>(from_environment());
    g_cap = cap;
  }
  return static_cast<Isa>(cap);
}

void set_isa(Isa isa) {
  if (!cpu_supports(isa)) {
    throw Error(ErrorCode::unsupported,
                fmt::format("this CPU lacks the instruction set {}", to_string(isa)));
  }
  g_cap = static_cast<int>(isa);
}

bool isa_enabled(Isa isa) {
  return isa <= active_isa() && cpu_supports(isa);
}

std::string cpu_description() {
  std::string name = "unknown CPU";
  if (cpuinfo_initialize() && cpuinfo_get_packages_count() > 0) {
    name = cpuinfo_get_package(0)->name;
  }
  return fmt::format("{}, {}", name, to_string(active_isa()));
}

}  // namespace narrow
