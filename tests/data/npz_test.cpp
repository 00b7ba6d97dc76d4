// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/npz.h"

#include <cstring>

#include "data/data_testing.h"
#include "narrow/core/rng.h"
#include "narrow/data/zip.h"

namespace narrow {
namespace {

using testing::as_bytes;
using testing::bytes_of;
using testing::error_of;
using testing::expect_contains;
using testing::golden;
using testing::TemporaryFolder;

std::map<std::string, Tensor> parse(const std::string& bytes) {
  // A copy of exactly this size, so that the sanitizer sees a read past the end.
  const auto owner = std::make_shared<std::vector<char>>(bytes.begin(), bytes.end());
  return parse_npz(owner, {reinterpret_cast<const std::byte*>(owner->data()), owner->size()}, "t");
}

class NumpyFile : public ::testing::TestWithParam<const char*> {};

TEST_P(NumpyFile, EveryTypeReads) {
  const auto arrays = read_npz(golden(GetParam()));
  const std::map<std::string, DType> types = {
      {"f4", DType::float32}, {"f8", DType::float64}, {"f2", DType::float16}, {"i1", DType::int8},
      {"u1", DType::uint8},   {"i2", DType::int16},   {"u2", DType::uint16},  {"i4", DType::int32},
      {"u4", DType::uint32},  {"i8", DType::int64},   {"u8", DType::uint64}};
  for (const auto& [name, dtype] : types) {
    const Tensor& t = arrays.at(name);
    EXPECT_EQ(t.dtype(), dtype) << name;
    EXPECT_EQ(t.dims(), (Dims{3, 4})) << name;
    const std::vector<float> values = t.to_floats();
    for (size_t i = 0; i < 12; ++i) {
      EXPECT_EQ(values[i], static_cast<float>(i) - (name[0] == 'u' ? 0 : 5)) << name;
    }
  }
  EXPECT_EQ(arrays.at("b1").dtype(), DType::boolean);
  EXPECT_EQ(arrays.at("b1").to_ints(), (std::vector<int64_t>{1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0}));
  EXPECT_EQ(arrays.at("scalar").dims(), Dims{});
  EXPECT_EQ(arrays.at("scalar").item<float>(), 2.5f);
  EXPECT_EQ(arrays.at("empty").dims(), (Dims{0, 3}));
}

TEST_P(NumpyFile, OtherOrdersAreConverted) {
  const auto arrays = read_npz(golden(GetParam()));
  const Tensor& fortran = arrays.at("fortran");
  EXPECT_EQ(fortran.dims(), (Dims{2, 3, 4}));
  for (size_t i = 0; i < 24; ++i) EXPECT_EQ(fortran.data<float>()[i], static_cast<float>(i));
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(arrays.at("big_f4").data<float>()[i], static_cast<float>(i));
    EXPECT_EQ(arrays.at("big_i2").data<int16_t>()[i], static_cast<int16_t>(i) - 5);
  }
}

INSTANTIATE_TEST_SUITE_P(Npz, NumpyFile, ::testing::Values("stored.npz", "deflated.npz"));

TEST(Npz, WhatIsWrittenReadsBack) {
  const TemporaryFolder folder;
  std::map<std::string, Tensor> arrays = read_npz(golden("stored.npz"));
  arrays["path/with:signs"] = Tensor::vector<float>({1, 2, 3});
  const auto path = folder.path() / "out.npz";
  write_npz(path, arrays);
  const auto again = read_npz(path);
  ASSERT_EQ(again.size(), arrays.size());
  for (const auto& [name, tensor] : arrays) EXPECT_TRUE(identical(tensor, again.at(name))) << name;
  const std::string first = bytes_of(path);
  write_npz(path, arrays);
  EXPECT_EQ(bytes_of(path), first);
}

TEST(Npz, ArraysAreMappedNotCopied) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "out.npz";
  write_npz(path, {{"a", Tensor::vector<int8_t>({1})}, {"w", Tensor::vector<double>({1, 2})}});
  const Tensor mapped = read_npz(path).at("w");
  EXPECT_FALSE(mapped.writable());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(mapped.raw()) % 64, 0u);
}

TEST(Npz, TypesThatNumpyLacksAreWidened) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "out.npz";
  const std::vector<float> reals = {1.5f, -2, 0};
  const std::vector<int64_t> ints = {-8, 7, 0, 3, -1};
  const std::vector<int64_t> crumbs = {3, 0, 2};
  write_npz(path, {{"b", Tensor::from_floats(reals, DType::bfloat16, {3})},
                   {"i4", Tensor::from_ints(ints, DType::int4, {5})},
                   {"u2", Tensor::from_ints(crumbs, DType::uint2, {3})}});
  const auto arrays = read_npz(path);
  EXPECT_EQ(arrays.at("b").dtype(), DType::float32);
  EXPECT_EQ(arrays.at("b").to_floats(), reals);
  EXPECT_EQ(arrays.at("i4").dtype(), DType::int8);
  EXPECT_EQ(arrays.at("i4").to_ints(), ints);
  EXPECT_EQ(arrays.at("u2").dtype(), DType::uint8);
  EXPECT_EQ(arrays.at("u2").to_ints(), crumbs);
}

TEST(Npz, SingleArrayFiles) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "one.npy";
  for (const Dims& dims : {Dims{}, Dims{6}, Dims{2, 3}, Dims{1, 0, 4}}) {
    const Tensor t(DType::int32, dims);
    write_npy(path, t);
    EXPECT_TRUE(identical(read_npy(path), t)) << to_string(dims);
    EXPECT_EQ(bytes_of(path).size() % 64, t.bytes() % 64) << "numpy pads the header to 64 bytes";
  }
}

TEST(Npz, OtherTypesAreRefusedByName) {
  const Error text = error_of([] { (void)read_npz(golden("text.npz")); });
  EXPECT_EQ(text.code(), ErrorCode::unsupported);
  expect_contains(text.what(), "array 'words'");
  expect_contains(text.what(), "<U2");
  EXPECT_EQ(error_of([] { (void)read_npz(golden("complex.npz")); }).code(), ErrorCode::unsupported);
}

TEST(Npz, MissingFile) {
  const Error e = error_of([] { (void)read_npz("/nonexistent/x.npz"); });
  EXPECT_EQ(e.code(), ErrorCode::not_found);
  expect_contains(e.what(), "/nonexistent/x.npz");
}

TEST(Npz, EveryTruncationIsAnError) {
  for (const char* name : {"stored.npz", "deflated.npz"}) {
    const std::string whole = bytes_of(golden(name));
    for (size_t n = 0; n < whole.size(); n += n < 200 ? 1 : 37) {
      EXPECT_THROW((void)parse(whole.substr(0, n)), Error) << name << " cut at " << n;
    }
  }
}

TEST(Npz, FlippedBitsNeverCrash) {
  Rng rng(1);
  int refused = 0;
  for (const char* name : {"stored.npz", "deflated.npz"}) {
    const std::string whole = bytes_of(golden(name));
    for (int i = 0; i < 1000; ++i) {
      std::string bad = whole;
      const auto at = rng.below(bad.size());
      bad[at] = static_cast<char>(bad[at] ^ (1 << rng.below(8)));
      try {
        (void)parse(bad);
      } catch (const Error&) {
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 1000);  // what is left over are names, times and other fields without effect
}

TEST(Npz, ChecksumProtectsValues) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "x.npz";
  write_npz(path, {{"x", Tensor::vector<float>({1, 2, 3})}});
  std::string bytes = bytes_of(path);
  const float two = 2;
  const size_t at = bytes.find(std::string(reinterpret_cast<const char*>(&two), 4), 64);
  ASSERT_NE(at, std::string::npos);
  bytes[at + 2] = 0x41;
  expect_contains(error_of([&] { (void)parse(bytes); }).what(), "checksum");
}

std::string npy(const std::string& header) {
  std::string out = "\x93NUMPY";
  out += '\x01';
  out += '\0';
  out += static_cast<char>(header.size() & 0xff);
  out += static_cast<char>(header.size() >> 8);
  return out + header;
}

TEST(Npy, HugeClaimsAllocateNothing) {
  for (const char* shape :
       {"(1000000000000,)", "(4000000000, 4000000000)", "(-1,)",
        "(9223372036854775807, 9223372036854775807)", "(99999999999999999999,)"}) {
    const std::string text =
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': " + std::string(shape) + ", }");
    const Error e = error_of([&] { (void)parse_npy(nullptr, as_bytes(text), "t"); });
    EXPECT_EQ(e.code(), ErrorCode::corrupt_data) << shape;
  }
}

TEST(Npy, DamagedHeaders) {
  for (const char* header :
       {"", "{", "{}", "{'descr': '<f4'}", "{'descr': '<f4', 'fortran_order': Maybe, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}", "{'descr' '<f4'",
        "{descr: '<f4'}"}) {
    const std::string text = npy(header) + "0000";
    const Error e = error_of([&] { (void)parse_npy(nullptr, as_bytes(text), "t"); });
    EXPECT_EQ(e.code(), ErrorCode::corrupt_data) << header;
  }
  EXPECT_EQ(error_of([] { (void)parse_npy(nullptr, as_bytes("PK"), "t"); }).code(),
            ErrorCode::corrupt_data);
}

TEST(Npy, BooleansAreChecked) {
  const std::string header = "{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }";
  const std::string good = npy(header) + std::string("\x01\x00", 2);
  EXPECT_EQ(parse_npy(nullptr, as_bytes(good), "t").to_ints(), (std::vector<int64_t>{1, 0}));
  const std::string bad = npy(header) + std::string("\x01\x02", 2);
  EXPECT_THROW((void)parse_npy(nullptr, as_bytes(bad), "t"), Error);
}

TEST(Zip, MembersMayNotShareBytes) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "x.npz";
  std::map<std::string, Tensor> arrays;
  for (const char* name : {"a", "b", "c"}) arrays[name] = Tensor(DType::float32, {1000});
  write_npz(path, arrays);
  std::string bytes = bytes_of(path);
  // Every directory entry claims nearly the whole archive, as a "zip bomb" does.
  const uint64_t claim = bytes.size() - 600;
  for (const char* name : {"a.npy", "b.npy", "c.npy"}) {
    const size_t sizes = bytes.rfind(name) + 5 + 4;  // in the zip64 field behind the name
    std::memcpy(bytes.data() + sizes, &claim, 8);
    std::memcpy(bytes.data() + sizes + 8, &claim, 8);
    std::memset(bytes.data() + sizes + 16, 0, 8);
  }
  expect_contains(error_of([&] { (void)parse(bytes); }).what(), "members overlap");
}

TEST(NpyRows, AreOneArray) {
  const TemporaryFolder folder;
  const Tensor whole = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2});
  write_npy(folder / "whole.npy", whole);
  {
    NpyRows rows(folder / "rows.npy", 3, 2);
    rows.add(Tensor::from<float>({1, 2}, {1, 2}));
    EXPECT_THROW(rows.add(Tensor::from<float>({1, 2, 3}, {1, 3})), Error);
    EXPECT_THROW(rows.add(Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2})), Error);
    EXPECT_THROW(rows.commit(), Error);
    rows.add(Tensor::from<float>({3, 4, 5, 6}, {2, 2}));
    rows.commit();
  }
  EXPECT_EQ(bytes_of(folder / "rows.npy"), bytes_of(folder / "whole.npy"));
  { NpyRows unfinished(folder / "gone.npy", 1, 1); }
  EXPECT_FALSE(std::filesystem::exists(folder / "gone.npy"));
}

}  // namespace
}  // namespace narrow
