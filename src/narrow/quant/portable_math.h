// SPDX-License-Identifier: Apache-2.0
// Elementary functions in double from + - * / and bit operations only, so that every machine gives
// the same bits (the system's libm differs between versions and instruction sets). Relative error
// below 1e-13; NaN in, NaN out. std::sqrt is exact by IEEE 754 and used as it is.
#pragma once

namespace narrow {

double portable_exp(double x);
double portable_expm1(double x);
/// -inf for 0, NaN below.
double portable_log(double x);
double portable_log1p(double x);
double portable_tanh(double x);
/// Absolute error below 1e-15 near 0 and at the ends alike.
double portable_erf(double x);
/// 1 - erf(x); the relative error is small over the whole range.
double portable_erfc(double x);
/// 1 / (1 + exp(-x)).
double portable_sigmoid(double x);
/// log(1 + exp(x)).
double portable_softplus(double x);
/// x^y as C's pow has it; exact products for small integer y.
double portable_pow(double x, double y);

}  // namespace narrow
