// SPDX-License-Identifier: Apache-2.0
// A statistics file that is accepted can be used by every observer and written again.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "narrow/calibrate/observer.h"
#include "narrow/core/error.h"

namespace {

void use(const narrow::Statistic& s) {
  using narrow::ObserverKind;
  for (const ObserverKind kind :
       {ObserverKind::minmax, ObserverKind::moving_average, ObserverKind::percentile,
        ObserverKind::mse, ObserverKind::entropy}) {
    for (const int bits : {4, 8}) {
      for (const auto symmetry : {narrow::Symmetry::symmetric, narrow::Symmetry::asymmetric}) {
        try {
          const narrow::Range r =
              narrow::estimate_range(s, {kind}, {.bits = bits, .symmetry = symmetry});
          if (!(r.rmin <= 0 && r.rmax >= 0)) std::abort();
        } catch (const narrow::Error& e) {
          if (e.code() == narrow::ErrorCode::internal) std::abort();
        }
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  narrow::Statistics statistics;
  try {
    statistics = narrow::statistics_from_json({reinterpret_cast<const char*>(data), size});
  } catch (const narrow::Error& e) {
    if (e.code() == narrow::ErrorCode::internal) std::abort();
    return 0;
  }
  size_t used = 0;
  for (const auto& [name, s] : statistics.values) {
    if (used++ == 4) break;  // the searches are slow, and every value is like the others
    use(s);
  }
  const std::string text = narrow::statistics_to_json(statistics);
  if (narrow::statistics_to_json(narrow::statistics_from_json(text)) != text) std::abort();
  return 0;
}
