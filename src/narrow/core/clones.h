// SPDX-License-Identifier: Apache-2.0
// For plain loops that compilers turn into vectors of whatever the CPU has (CMakeLists.txt asks for
// it). Contraction is off: all give the same numbers.
#pragma once

// Sanitizers are not ready yet when the program's loader chooses.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define NARROW_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NARROW_CLONES
#endif

/// Before a loop whose turns do not depend on each other, although pointers may be equal.
#if defined(__clang__)
#define NARROW_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define NARROW_INDEPENDENT _Pragma("GCC ivdep")
#endif
