// SPDX-License-Identifier: Apache-2.0
// Independent sums in registers, for the peaks.cpp files: one piece of assembly, as a compiler
// would keep them in memory and then measure that.
#pragma once

/// m(i) for each chain of a turn; a chain's sum is vector register i.
#define NARROW_CHAINS_10(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9)
#define NARROW_CHAINS_12(m) NARROW_CHAINS_10(m) m(10) m(11)
#define NARROW_CHAINS_16(m) NARROW_CHAINS_12(m) m(12) m(13) m(14) m(15)

/// The registers that these write, or use for products in between (10 and 11 of 10 chains).
#define NARROW_CLOBBERS_12 \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"
#define NARROW_CLOBBERS_16 NARROW_CLOBBERS_12, "xmm12", "xmm13", "xmm14", "xmm15"

/// zero(i) of every chain, then `count` (one at least) turns of chain(i).
#define NARROW_TURNS(chains, zero, chain) \
  chains(zero) "1:\n\t" chains(chain) "dec %[count]\n\tjnz 1b"
