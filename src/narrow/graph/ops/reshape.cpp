// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/ops/reshape.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/graph/ops/infer_util.h"

namespace narrow::ops {
namespace {

/// The dimensions on both sides once those that are known to be equal have been struck out.
struct Remainder {
  SymbolicShape input;
  SymbolicShape output;
};

void strike_equal_symbols(Remainder& r) {
  for (size_t i = 0; i < r.output.size();) {
    const Dim& d = r.output[i];
    const auto it =
        d.name.empty() || d.known() ? r.input.end() : std::find(r.input.begin(), r.input.end(), d);
    if (it == r.input.end()) {
      ++i;
      continue;
    }
    r.input.erase(it);
    r.output.erase(r.output.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

/// The dimension that makes both products equal.
Dim missing_dim(const InferContext& c, const Remainder& r) {
  const Dim others = product(c, r.output);
  if (!others.known() || others.value == 0) return {};
  SymbolicShape unknown;
  Dim known = 1;
  for (const Dim& d : r.input) {
    if (d.known()) {
      known = multiply(c, known, d);
    } else {
      unknown.push_back(d);
    }
  }
  if (unknown.empty() || known == Dim(0)) {
    if (known.value % others.value != 0) {
      c.fail(fmt::format("{} elements do not reshape into rows of {}", known.value, others.value));
    }
    return known.value / others.value;
  }
  return unknown.size() == 1 && known == others ? unknown[0] : Dim();
}

}  // namespace

std::optional<SymbolicShape> reshaped(const InferContext& c) {
  require_rank(c, 1, 1);
  const auto wanted = c.value(1);
  if (!wanted) {
    if (const Tensor* t = c.constant(1)) {
      c.fail(fmt::format("the shape is {}", t->describe()));  // too large or not of integers
    }
    const SymbolicShape* shape = c.shape(1);
    const bool usable = shape && shape->size() == 1 && (*shape)[0].known() &&
                        (*shape)[0].value <= KnownValue::kMaxElements;
    return usable ? std::optional(unknown_shape(static_cast<size_t>((*shape)[0].value)))
                  : std::nullopt;
  }
  const SymbolicShape* x = c.shape(0);
  const bool copy_zero = c.node().int_or("allowzero", 0) == 0;
  SymbolicShape y;
  Remainder rest;
  std::vector<bool> struck(x ? x->size() : 0, false);
  std::optional<size_t> open;  // the entry that the element count decides
  size_t unknown = 0;
  for (size_t i = 0; i < wanted->elements.size(); ++i) {
    const KnownElement& e = wanted->elements[i];
    y.push_back(e.dim());
    if (e.is_integer() && e.integer < -1) {
      c.fail(fmt::format("the shape holds {}", e.integer));
    }
    if (e.is_integer() && e.integer == -1) {
      if (open) c.fail("the shape holds -1 twice");
      open = i;
    } else if (e.is_integer() && e.integer == 0 && copy_zero) {
      if (x && i >= x->size()) {
        c.fail(fmt::format("the shape copies dimension {} of {}", i, to_string(*x)));
      }
      if (x) {
        y[i] = (*x)[i];
        struck[i] = true;
      } else {
        y[i] = Dim();
        ++unknown;
      }
    } else {
      rest.output.push_back(y[i]);
      if (y[i] == Dim()) ++unknown;
    }
  }
  if (!x) return y;
  for (size_t i = 0; i < x->size(); ++i) {
    if (!struck[i]) rest.input.push_back((*x)[i]);
  }
  strike_equal_symbols(rest);
  if (!open && unknown == 1) {
    // The one entry that nothing is known of follows from the element count, too.
    const auto it = std::find(rest.output.begin(), rest.output.end(), Dim());
    if (it != rest.output.end()) {
      rest.output.erase(it);
      for (size_t i = 0; i < y.size(); ++i) {
        if (y[i] == Dim() && wanted->elements[i].kind == KnownElement::Kind::unknown) open = i;
      }
    }
  }
  if (open) {
    y[*open] = missing_dim(c, rest);
    return y;
  }
  const Dim before = product(c, rest.input);
  const Dim after = product(c, rest.output);
  if (before.known() && after.known() && before != after) {
    c.fail(fmt::format("{} does not reshape to {}", to_string(*x), to_string(y)));
  }
  return y;
}

}  // namespace narrow::ops
