// SPDX-License-Identifier: Apache-2.0
// Instruction sets this program has kernels for, and which one runs. Detection covers the CPU and
// the operating system's saved state. NARROW_ISA forces one; naming one that this CPU lacks is an
// error, never a silent fallback.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace narrow {

/// Worst first; a better one implies the worse ones of its architecture.
enum class Isa { scalar, avx2, avx_vnni, avx512_vnni, amx_int8, neon, neon_dotprod, neon_i8mm };

const char* to_string(Isa isa);
std::optional<Isa> isa_from_string(std::string_view name);

/// Whether this machine can run kernels for `isa`.
bool cpu_supports(Isa isa);

/// Products of bfloat16 numbers with float32 sums (AVX-512 BF16; AMX BF16 comes with it).
bool cpu_multiplies_bfloat16();

/// Everything this machine supports, best first; scalar is always the last.
std::vector<Isa> supported_isas();

/// The cap in force: NARROW_ISA or set_isa(), else the best supported one. Throws invalid_argument
/// for an unknown name and unsupported for one that this CPU lacks.
Isa active_isa();
void set_isa(Isa isa);

/// Whether kernels for `isa` may run now: supported, and not above the cap.
bool isa_enabled(Isa isa);

/// "Intel(R) Xeon(R) ..., avx512_vnni", for reports.
std::string cpu_description();

}  // namespace narrow
