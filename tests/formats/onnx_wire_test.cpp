// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/wire.h"

#include "formats/onnx_testing.h"

namespace narrow::onnx {
namespace {

using namespace narrow::testing;  // NOLINT: the tests' own words

TEST(OnnxWire, every_kind_of_field_comes_back) {
  WireWriter inner;
  inner.integer(3, -5);
  WireWriter w;
  w.integer(1, 300);
  w.float32(2, 1.5f);
  w.text(3, "");
  w.text(3, "abc");
  w.packed_integers(4, std::vector<int64_t>{0, -1, INT64_MAX});
  w.packed_floats(5, std::vector<float>{0.5f, -2.0f});
  w.message(6, std::move(inner));
  w.tensor_bytes(7, Tensor::vector(std::vector<int16_t>{258, -1}));
  w.integer(8, 7);
  const std::string bytes = encode(w);
  EXPECT_EQ(bytes.size(), w.size());

  WireReader r(bytes, bytes.data());
  ASSERT_TRUE(r.next());
  EXPECT_EQ(r.integer(), 300);
  ASSERT_TRUE(r.next());
  EXPECT_EQ(r.float32(), 1.5f);
  ASSERT_TRUE(r.next());
  EXPECT_EQ(r.field(), 3u) << "empty texts are left out";
  EXPECT_EQ(r.string(), "abc");
  ASSERT_TRUE(r.next());
  std::vector<int64_t> integers;
  r.each_integer([&](int64_t i) { integers.push_back(i); });
  EXPECT_EQ(integers, (std::vector<int64_t>{0, -1, INT64_MAX}));
  ASSERT_TRUE(r.next());
  std::vector<float> floats;
  r.each_fixed<float>([&](float f) { floats.push_back(f); });
  EXPECT_EQ(floats, (std::vector<float>{0.5f, -2.0f}));
  ASSERT_TRUE(r.next());
  WireReader message = r.message();
  ASSERT_TRUE(message.next());
  EXPECT_EQ(message.field(), 3u);
  EXPECT_EQ(message.integer(), -5);
  EXPECT_FALSE(message.next());
  ASSERT_TRUE(r.next());
  EXPECT_EQ(r.bytes(), std::string_view("\2\1\xff\xff", 4));
  ASSERT_TRUE(r.next());
  EXPECT_EQ(r.integer(), 7);
  EXPECT_FALSE(r.next());
}

// Writers of protobuf 2 leave repeated numbers unpacked.
TEST(OnnxWire, repeated_numbers_may_stand_one_by_one) {
  WireWriter w;
  for (const int64_t i : {4, 5}) w.integer(1, i);
  for (const float f : {0.5f, 0.25f}) w.float32(2, f);
  const std::string bytes = encode(w);
  WireReader r(bytes, bytes.data());
  std::vector<double> seen;
  while (r.next()) {
    if (r.field() == 1) r.each_integer([&](int64_t i) { seen.push_back(static_cast<double>(i)); });
    if (r.field() == 2) r.each_fixed<float>([&](float f) { seen.push_back(double{f}); });
  }
  EXPECT_EQ(seen, (std::vector<double>{4, 5, 0.5, 0.25}));
}

TEST(OnnxWire, broken_bytes_are_errors_that_say_where) {
  const auto walk = [](std::string_view bytes) {
    WireReader r(bytes, bytes.data());
    while (r.next()) {
    }
  };
  const auto refused = [&](const std::string& bytes, const std::string& part) {
    expect_error([&] { walk(bytes); }, ErrorCode::corrupt_data, part);
  };
  const std::string good("\x08\x01", 2);
  refused(good + "\x80", "byte 2: a number is cut short");
  refused(good + std::string("\x0a\x05\x61", 3), "byte 2: field 1 claims 5 bytes, 1 are left");
  refused(good + "\x0d\x01", "byte 2: a number is cut short");
  refused(good + "\x09\x01\x02", "byte 2: a number is cut short");
  refused(good + std::string("\x00\x01", 2), "byte 2: no field");
  refused(good + "\x0b", "wire type 3");
  refused("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "cut short");
  // A length of 2^64 - 1 does not wrap around.
  refused("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "claims 18446744073709551615 bytes");
}

TEST(OnnxWire, fields_of_another_type_are_errors) {
  WireWriter w;
  w.integer(1, 1);
  const std::string bytes = encode(w);
  WireReader r(bytes, bytes.data());
  ASSERT_TRUE(r.next());
  expect_error([&] { (void)r.bytes(); }, ErrorCode::corrupt_data, "field 1 should be bytes");
  expect_error([&] { (void)r.float32(); }, ErrorCode::corrupt_data, "field 1 should be a float");
  WireWriter text;
  text.bytes(2, "abc");
  const std::string other = encode(text);
  WireReader s(other, other.data());
  ASSERT_TRUE(s.next());
  expect_error([&] { (void)s.integer(); }, ErrorCode::corrupt_data, "should be an integer");
  expect_error([&] { s.each_fixed<float>([](float) {}); }, ErrorCode::corrupt_data,
               "broken number");
}

}  // namespace
}  // namespace narrow::onnx
