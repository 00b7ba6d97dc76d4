// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/dataset.h"

#include <limits>
#include <numeric>

#include "data/data_testing.h"
#include "narrow/core/parallel.h"
#include "narrow/data/npz.h"

namespace narrow {
namespace {

using testing::assets;
using testing::bytes_of;
using testing::error_of;
using testing::expect_contains;
using testing::golden;
using testing::TemporaryFolder;

DataHints model(Dims dims, DType dtype = DType::float32) {
  return {{{"image", dtype, std::move(dims)}}};
}

std::unique_ptr<Dataset> open(const std::string& spec, const DataHints& hints = {}) {
  return open_dataset(parse_data_spec(spec), hints);
}

Batch get(const Dataset& data, std::vector<int64_t> indices) {
  return data.get(indices);
}

std::string big_endian(uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
          static_cast<char>(v)};
}

std::string idx_images(uint32_t count, uint32_t height, uint32_t width) {
  std::string out =
      std::string("\0\0\x08\x03", 4) + big_endian(count) + big_endian(height) + big_endian(width);
  for (uint32_t i = 0; i < count * height * width; ++i) out += static_cast<char>(i);
  return out;
}

std::string idx_labels(const std::string& labels) {
  return std::string("\0\0\x08\x01", 4) + big_endian(static_cast<uint32_t>(labels.size())) + labels;
}

/// Three pictures of 2 x 3 with the labels 5, 0, 7.
class SmallMnist : public ::testing::Test {
 protected:
  SmallMnist() {
    folder_.write("t10k-images-idx3-ubyte", idx_images(3, 2, 3));
    folder_.write("t10k-labels-idx1-ubyte", idx_labels(std::string("\5\0\7", 3)));
    spec_ = "mnist:" + folder_.path().string();
  }
  TemporaryFolder folder_;
  std::string spec_;
};

TEST_F(SmallMnist, IsShapedForTheModel) {
  EXPECT_EQ(get(*open(spec_, model({-1, 1, 2, 3})), {0, 1}).inputs.at("image").dims(),
            (Dims{2, 1, 2, 3}));
  EXPECT_EQ(get(*open(spec_, model({-1, 2, 3, 1})), {0}).inputs.at("image").dims(),
            (Dims{1, 2, 3, 1}));
  EXPECT_EQ(get(*open(spec_, model({-1, 2, 3})), {0}).inputs.at("image").dims(), (Dims{1, 2, 3}));
  EXPECT_EQ(get(*open(spec_, model({-1, 6})), {0}).inputs.at("image").dims(), (Dims{1, 6}));
  EXPECT_EQ(get(*open(spec_, model({1, -1, -1, -1})), {0}).inputs.at("image").dims(),
            (Dims{1, 1, 2, 3}));
  EXPECT_EQ(get(*open(spec_), {0}).inputs.at("x").dims(), (Dims{1, 1, 2, 3}));
}

TEST_F(SmallMnist, ValuesAndLabels) {
  const auto data = open(spec_, model({-1, 1, 2, 3}));
  EXPECT_EQ(data->size(), 3);
  ASSERT_TRUE(data->labelled());
  const Batch batch = get(*data, {2, 0});
  EXPECT_EQ(batch.labels, (std::vector<int64_t>{7, 5}));
  const auto x = batch.inputs.at("image").data<float>();
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(x[i], static_cast<float>(12 + i) / 255.0f);
    EXPECT_EQ(x[6 + i], static_cast<float>(i) / 255.0f);
  }
}

TEST_F(SmallMnist, ScaleMeanStd) {
  const auto whole = open(spec_ + ",scale=1", model({-1, 6}));
  EXPECT_EQ(get(*whole, {1}).inputs.at("image").data<float>()[0], 6.0f);
  const auto centred = open(spec_ + ",scale=1/2,mean=1,std=4", model({-1, 6}));
  EXPECT_EQ(get(*centred, {1}).inputs.at("image").data<float>()[1], (3.5f - 1) / 4);
}

TEST_F(SmallMnist, TypeOfTheModel) {
  const auto bytes = open(spec_, model({-1, 6}, DType::uint8));
  EXPECT_EQ(get(*bytes, {2}).inputs.at("image").data<uint8_t>()[5], 17);
  const auto halves = open(spec_ + ",scale=1", model({-1, 6}, DType::float16));
  EXPECT_EQ(get(*halves, {2}).inputs.at("image").to_floats()[5], 17.0f);
  const auto doubles = open(spec_ + ",scale=1", model({-1, 6}, DType::float64));
  EXPECT_EQ(get(*doubles, {2}).inputs.at("image").data<double>()[5], 17.0);
  expect_contains(error_of([&] {
                    (void)open(spec_, model({-1, 6}, DType::int64));
                  }).what(),
                  "takes int64");
  EXPECT_THROW((void)open(spec_ + ",dtype=uint8", model({-1, 6})), Error);
}

TEST_F(SmallMnist, SizesThatDoNotFit) {
  const Error e = error_of([&] { (void)get(*open(spec_, model({-1, 784})), {0}); });
  EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
  expect_contains(e.what(), "'image' takes 784");
  // Where nothing is said, the picture is brought to the model's size.
  EXPECT_EQ(get(*open(spec_, model({-1, 1, 4, 4})), {0}).inputs.at("image").dims(),
            (Dims{1, 1, 4, 4}));
  const Error crop = error_of([&] { (void)get(*open(spec_ + ",crop=9", model({})), {1}); });
  expect_contains(crop.what(), "crop=9x9 is larger");
  expect_contains(crop.what(), "picture 1");
  const Error size = error_of([&] {
    (void)get(*open(spec_ + ",crop=2", model({-1, 1, 4, 4})), {0});
  });
  expect_contains(size.what(), "takes 4 x 4");
  EXPECT_THROW((void)open(spec_, model({-1, 5, 2, 4})), Error);
  EXPECT_THROW((void)open(spec_, model({-1, 1, 1, 2, 3})), Error);
}

TEST_F(SmallMnist, IndicesAreChecked) {
  const auto data = open(spec_);
  EXPECT_THROW((void)get(*data, {3}), Error);
  EXPECT_THROW((void)get(*data, {-1}), Error);
  EXPECT_TRUE(get(*data, {}).inputs.empty());
}

TEST_F(SmallMnist, SubsetsAndSamples) {
  const auto two = open(spec_ + ",samples=2");
  EXPECT_EQ(two->size(), 2);
  EXPECT_EQ(get(*two, {0, 1}).labels, (std::vector<int64_t>{5, 0}));
  EXPECT_EQ(open(spec_ + ",samples=100")->size(), 3);
  const std::shared_ptr<const Dataset> whole = open(spec_);
  const auto part = subset(whole, {2, 2, 1});
  EXPECT_EQ(get(*part, {0, 1, 2}).labels, (std::vector<int64_t>{7, 7, 0}));
  EXPECT_THROW((void)subset(whole, {3}), Error);
  EXPECT_NE(part->fingerprint(), whole->fingerprint());
}

TEST_F(SmallMnist, FingerprintFollowsTheContent) {
  const std::string before = open(spec_)->fingerprint();
  EXPECT_EQ(open(spec_ + ",scale=1")->fingerprint(), before);
  std::string images = idx_images(3, 2, 3);
  images.back() ^= 1;
  folder_.write("t10k-images-idx3-ubyte", images);
  EXPECT_NE(open(spec_)->fingerprint(), before);
}

TEST_F(SmallMnist, CountsMustAgree) {
  folder_.write("t10k-labels-idx1-ubyte", idx_labels("ab"));
  const Error e = error_of([&] { (void)open(spec_); });
  EXPECT_EQ(e.code(), ErrorCode::corrupt_data);
  expect_contains(e.what(), "2 labels for the 3 pictures");
}

TEST_F(SmallMnist, FileNames) {
  const Error train = error_of([&] { (void)open(spec_ + ",split=train"); });
  EXPECT_EQ(train.code(), ErrorCode::not_found);
  expect_contains(train.hint(), "train-images-idx3-ubyte");
  folder_.write("kmnist/train-images.idx3-ubyte", idx_images(1, 2, 2));
  folder_.write("kmnist/train-labels.idx1-ubyte", idx_labels("\1"));
  EXPECT_EQ(open("mnist:" + folder_.path().string() + "/kmnist,split=train")->size(), 1);
  folder_.write("test-images-idx3-ubyte", idx_images(1, 2, 2));
  expect_contains(error_of([&] { (void)open(spec_); }).what(), "several files");
  EXPECT_EQ(error_of([] { (void)open("mnist:/nonexistent"); }).code(), ErrorCode::not_found);
}

TEST_F(SmallMnist, AnEmptySetIsAnError) {
  folder_.write("t10k-images-idx3-ubyte", idx_images(0, 2, 3));
  folder_.write("t10k-labels-idx1-ubyte", idx_labels(""));
  expect_contains(error_of([&] { (void)open(spec_); }).what(), "is empty");
}

TEST(FashionMnist, DebianFilesRead) {
  if (!std::filesystem::exists(testing::kFashionMnist)) GTEST_SKIP() << "no dataset-fashion-mnist";
  const std::string spec = std::string("mnist:") + testing::kFashionMnist;
  const auto test = open(spec, model({-1, 1, 28, 28}));
  EXPECT_EQ(test->size(), 10000);
  EXPECT_EQ(open(spec + ",split=train")->size(), 60000);
  const Batch batch = get(*test, {0, 1, 2, 3});
  EXPECT_EQ(batch.labels, (std::vector<int64_t>{9, 2, 1, 1}));  // boot, pullover, trousers twice
  std::vector<int64_t> all(10000);
  std::iota(all.begin(), all.end(), 0);
  std::vector<int64_t> histogram(10);
  for (const int64_t label : test->get(all).labels) ++histogram[static_cast<size_t>(label)];
  EXPECT_EQ(histogram, std::vector<int64_t>(10, 1000));
}

std::string cifar_record(char label, unsigned char first) {
  std::string out(3073, '\0');
  out[0] = label;
  for (size_t i = 0; i < 3072; ++i) out[i + 1] = static_cast<char>(first + i / 1024);
  return out;
}

TEST(Cifar10, BatchesArePlanar) {
  const TemporaryFolder folder;
  folder.write("test_batch.bin", cifar_record(3, 10) + cifar_record(9, 20));
  folder.write("data_batch_1.bin", cifar_record(1, 0));
  folder.write("data_batch_3.bin", cifar_record(2, 0) + cifar_record(4, 100));
  const std::string spec = "cifar10:" + folder.path().string();
  const auto data = open(spec + ",scale=1", model({-1, 3, 32, 32}));
  const Batch batch = get(*data, {1, 0});
  EXPECT_EQ(batch.labels, (std::vector<int64_t>{9, 3}));
  const auto x = batch.inputs.at("image").data<float>();
  EXPECT_EQ(x[0], 20.0f);
  EXPECT_EQ(x[1024], 21.0f);
  EXPECT_EQ(x[3072 + 2 * 1024], 12.0f);
  const auto bgr = open(spec + ",scale=1,order=bgr", model({-1, 32, 32, 3}));
  EXPECT_EQ(get(*bgr, {0}).inputs.at("image").data<float>()[0], 12.0f);
  const auto train = open(spec + ",split=train,scale=1", model({-1, 3, 32, 32}));
  EXPECT_EQ(train->size(), 3);
  EXPECT_EQ(get(*train, {2}).labels[0], 4);
  EXPECT_EQ(get(*train, {2}).inputs.at("image").data<float>()[0], 100.0f);
}

TEST(Cifar10, DamageIsNamed) {
  const TemporaryFolder folder;
  const std::string spec = "cifar10:" + folder.path().string();
  EXPECT_EQ(error_of([&] { (void)open(spec); }).code(), ErrorCode::not_found);
  folder.write("test_batch.bin", cifar_record(3, 10) + "x");
  expect_contains(error_of([&] { (void)open(spec); }).what(), "no multiple of 3073");
  folder.write("test_batch.bin", cifar_record(3, 10) + cifar_record(10, 10));
  expect_contains(error_of([&] { (void)open(spec); }).what(), "record 1 has the label 10");
  folder.write("test_batch.bin", "");
  expect_contains(error_of([&] { (void)open(spec); }).what(), "is empty");
}

/// Class folders b (two pictures) and a (one), written out of order.
class Photos : public ::testing::Test {
 protected:
  Photos() {
    const std::string png = bytes_of(golden("rgb.png"));
    folder_.write("b/1.png", png);
    folder_.write("b/deep/0.JPG", bytes_of(golden("baseline.jpg")));
    folder_.write("a/z.jpeg", bytes_of(golden("gray.jpg")));
    folder_.write("a/notes.txt", "no picture");
    folder_.write("a/.hidden.png", "no picture");
    spec_ = "images:" + folder_.path().string();
  }
  TemporaryFolder folder_;
  std::string spec_;
};

TEST_F(Photos, LabelsAreSortedFolders) {
  const auto data = open(spec_, model({-1, 3, 8, 9}));
  ASSERT_EQ(data->size(), 3);
  ASSERT_TRUE(data->labelled());
  const Batch batch = get(*data, {0, 1, 2});
  EXPECT_EQ(batch.labels, (std::vector<int64_t>{0, 1, 1}));
  EXPECT_EQ(batch.inputs.at("image").dims(), (Dims{3, 3, 8, 9}));
  EXPECT_FALSE(open(spec_ + ",labels=none")->labelled());
}

TEST_F(Photos, PixelsKeepTheirPlaces) {
  const auto expected = read_npz(golden("decoded.npz")).at("rgb.png");
  const auto e = expected.data<uint8_t>();  // [24, 37, 3]
  const auto nchw = get(*open(spec_ + ",scale=1", model({-1, 3, -1, -1})), {1}).inputs.at("image");
  ASSERT_EQ(nchw.dims(), (Dims{1, 3, 24, 37}));
  const auto nhwc = get(*open(spec_ + ",scale=1,order=bgr", model({-1, -1, -1, 3})), {1});
  const Tensor& last = nhwc.inputs.at("image");
  ASSERT_EQ(last.dims(), (Dims{1, 24, 37, 3}));
  for (size_t i = 0; i < 24 * 37; ++i) {
    for (size_t c = 0; c < 3; ++c) {
      ASSERT_EQ(nchw.data<float>()[c * 24 * 37 + i], e[3 * i + c]);
      ASSERT_EQ(last.data<float>()[3 * i + c], e[3 * i + 2 - c]);
    }
  }
}

TEST_F(Photos, MeanAndStdFollowTheChannelsOfTheModel) {
  const auto plain = get(*open(spec_, model({-1, 3, 24, 37})), {1}).inputs.at("image");
  const auto data = open(spec_ + ",mean=0.1/0.2/0.3,std=0.5/0.25/2", model({-1, 3, 24, 37}));
  const auto scaled = get(*data, {1}).inputs.at("image");
  const double mean[] = {0.1, 0.2, 0.3};
  const double std[] = {0.5, 0.25, 2};
  for (size_t c = 0; c < 3; ++c) {
    for (size_t i = 0; i < 24 * 37; ++i) {
      const double x = double{plain.data<float>()[c * 888 + i]};
      EXPECT_NEAR(double{scaled.data<float>()[c * 888 + i]}, (x - mean[c]) / std[c], 1e-6);
    }
  }
  EXPECT_THROW((void)open(spec_ + ",mean=0.1/0.2/0.3,gray"), Error);
}

TEST_F(Photos, ShortSideThenCrop) {
  const auto data = open(spec_ + ",resize=16,crop=12", model({-1, 3, 12, 12}));
  EXPECT_EQ(get(*data, {0, 1, 2}).inputs.at("image").dims(), (Dims{3, 3, 12, 12}));
  const Error e = error_of([&] {
    (void)get(*open(spec_ + ",resize=12", model({-1, 3, 12, 12})), {0});
  });
  expect_contains(e.hint(), "crop=12x12");
}

TEST_F(Photos, ThreadsDoNotChangeABatch) {
  const auto data = open(spec_, model({-1, 3, 31, 17}));
  Batch one, two;
  {
    const ThreadLimit limit(1);
    one = get(*data, {2, 1, 0, 2});
  }
  {
    const ThreadLimit limit(4);
    two = get(*data, {2, 1, 0, 2});
  }
  EXPECT_TRUE(identical(one.inputs.at("image"), two.inputs.at("image")));
}

TEST_F(Photos, DamagedPicturesAreNamed) {
  folder_.write("b/2.png", "\x89PNG but no more");
  const auto data = open(spec_, model({-1, 3, 8, 8}));
  const Error e = error_of([&] { (void)get(*data, {0, 1, 2, 3}); });
  EXPECT_EQ(e.code(), ErrorCode::corrupt_data);
  expect_contains(e.what(), "b/2.png");
}

TEST_F(Photos, DifferentSizesNeedOne) {
  folder_.write("b/2.png", bytes_of(golden("small.png")));
  const Error e = error_of([&] { (void)get(*open(spec_), {0, 2}); });
  EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
  expect_contains(e.what(), "b/2.png: 5 x 4 pixels");
  expect_contains(e.what(), "have 37 x 24");
  EXPECT_NO_THROW((void)get(*open(spec_ + ",resize=8x8"), {0, 2}));
}

TEST_F(Photos, LoosePicturesBesideFolders) {
  folder_.write("loose.png", bytes_of(golden("rgb.png")));
  const Error e = error_of([&] { (void)open(spec_); });
  expect_contains(e.what(), "loose.png");
  expect_contains(e.hint(), "labels=none");
  EXPECT_EQ(open(spec_ + ",labels=none")->size(), 4);
}

TEST_F(Photos, LabelsFromCsv) {
  folder_.write("l.csv",
                "\xef\xbb\xbf"
                "file,label,name\r\nb/1.png,17,cat\r\n\"a/z.jpeg\",3\r\n");
  const auto data = open(spec_ + ",labels=l.csv", model({-1, 1, 4, 4}));
  EXPECT_EQ(data->size(), 2);
  EXPECT_EQ(get(*data, {0, 1}).labels, (std::vector<int64_t>{17, 3}));
  folder_.write("spaces.txt", "b/1.png 17\na/z.jpeg\t3\n");
  EXPECT_EQ(get(*open(spec_ + ",labels=spaces.txt", model({-1, 1, 4, 4})), {0, 1}).labels,
            (std::vector<int64_t>{17, 3}));
}

TEST_F(Photos, DamagedLabelFiles) {
  const auto refuse = [&](const std::string& text, const std::string& piece) {
    folder_.write("l.csv", text);
    expect_contains(error_of([&] { (void)open(spec_ + ",labels=l.csv"); }).what(), piece);
  };
  refuse("", "names no pictures");
  refuse("file,label\n", "names no pictures");
  refuse("b/1.png,1\nb/1.png,2\n", "line 2: 'b/1.png' stands in line 1 too");
  refuse("b/1.png,1\nno.png,2\n", "line 2: 'no.png' is not in");
  refuse("b/1.png,-1\n", "line 1: the label is negative");
  refuse("file,label\nb/1.png,one\n", "line 2: no file name and label");
  refuse("file,label\n\"b/1.png,1\n", "line 2: no file name and label");
  EXPECT_EQ(error_of([&] { (void)open(spec_ + ",labels=none.csv"); }).code(), ErrorCode::not_found);
}

TEST(Images, FoldersWithoutPictures) {
  const TemporaryFolder folder;
  const Error empty = error_of([&] { (void)open("images:" + folder.path().string()); });
  expect_contains(empty.what(), "has no pictures");
  EXPECT_EQ(error_of([] { (void)open("images:/nonexistent"); }).code(), ErrorCode::not_found);
}

TEST(Images, FlatFoldersHaveNoLabels) {
  const TemporaryFolder folder;
  folder.write("1.png", bytes_of(golden("rgb.png")));
  const auto data = open("images:" + folder.path().string());
  EXPECT_FALSE(data->labelled());
  EXPECT_TRUE(get(*data, {0}).labels.empty());
  EXPECT_THROW((void)open("images:" + folder.path().string() + ",labels=folders"), Error);
}

TEST(Images, ModelsWithTwoInputs) {
  const TemporaryFolder folder;
  folder.write("1.png", bytes_of(golden("rgb.png")));
  const DataHints hints = {{{"a", DType::float32, {1}}, {"b", DType::float32, {1}}}};
  const Error e = error_of([&] { (void)open("images:" + folder.path().string(), hints); });
  expect_contains(e.what(), "2 inputs");
  expect_contains(e.hint(), "npz:");
}

TEST(Images, CifarJpegsAreInTheOrderOfItsClasses) {
  const auto archive = assets() / "cifar10/cifar10_test_jpeg.tar.gz";
  if (!std::filesystem::exists(archive)) GTEST_SKIP() << "no " << archive;
  // The sorted folder names are CIFAR-10's own order of classes.
  const std::vector<std::string> classes = {"airplane", "automobile", "bird",  "cat",  "deer",
                                            "dog",      "frog",       "horse", "ship", "truck"};
  const TemporaryFolder folder;
  const std::string command =
      "tar xzf '" + archive.string() + "' -C '" + folder.path().string() + "'";
  ASSERT_EQ(std::system(command.c_str()), 0);
  const auto data = open("images:" + folder.path().string() + "/test", model({-1, 3, 32, 32}));
  ASSERT_EQ(data->size(), 10000);
  std::vector<int64_t> every_hundredth;
  for (int64_t i = 0; i < 10000; i += 100) every_hundredth.push_back(i);
  const Batch batch = data->get(every_hundredth);
  for (size_t i = 0; i < every_hundredth.size(); ++i) {
    EXPECT_EQ(batch.labels[i], every_hundredth[i] / 1000);
  }
  for (size_t c = 0; c < classes.size(); ++c) {
    EXPECT_TRUE(std::filesystem::is_directory(folder.path() / "test" / classes[c])) << classes[c];
  }
}

TEST(NpzData, SamplesAndLabels) {
  const auto data = open("npz:" + golden("samples.npz").string(), model({-1, 2, 3}));
  EXPECT_EQ(data->size(), 5);
  const auto whole = read_npz(golden("samples.npz"));
  const Batch batch = get(*data, {4, 0, 4});
  EXPECT_EQ(batch.labels, (std::vector<int64_t>{1, 4, 1}));
  const Tensor& x = batch.inputs.at("image");  // `x` serves the only input
  ASSERT_EQ(x.dims(), (Dims{3, 2, 3}));
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(x.data<float>()[i], whole.at("x").data<float>()[24 + i]);
    EXPECT_EQ(x.data<float>()[6 + i], whole.at("x").data<float>()[i]);
  }
  EXPECT_EQ(open("npz:" + golden("samples.npz").string() + ",samples=2")->size(), 2);
}

TEST(NpzData, DimensionsOfOneMayDiffer) {
  const auto data = open("npz:" + golden("samples.npz").string(), model({-1, 1, 2, 3}));
  EXPECT_EQ(get(*data, {0}).inputs.at("image").dims(), (Dims{1, 1, 2, 3}));
  const Error e = error_of([] {
    (void)open("npz:" + golden("samples.npz").string(), model({-1, 3, 2}));
  });
  expect_contains(e.what(), "has the shape [5, 2, 3]");
  expect_contains(e.what(), "takes [-1, 3, 2]");
}

TEST(NpzData, SeveralInputs) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "d.npz";
  write_npz(path, {{"a", Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2})},
                   {"b", Tensor::from<int64_t>({7, 8, 9}, {3})},
                   {"limit", Tensor::from<float>({0.5f}, {1})}});
  const DataHints hints = {
      {{"a", DType::float32, {-1, 2}}, {"b", DType::int64, {-1}}, {"limit", DType::float32, {1}}}};
  const auto data = open("npz:" + path.string(), hints);
  const Batch batch = get(*data, {2, 0});
  EXPECT_FALSE(data->labelled());
  EXPECT_EQ(batch.inputs.at("a").to_floats(), (std::vector<float>{5, 6, 1, 2}));
  EXPECT_EQ(batch.inputs.at("b").to_ints(), (std::vector<int64_t>{9, 7}));
  EXPECT_EQ(batch.inputs.at("limit").to_floats(), (std::vector<float>{0.5f}));
  DataHints more = hints;
  more.inputs.push_back({"c", DType::float32, {-1}});
  expect_contains(error_of([&] { (void)open("npz:" + path.string(), more); }).what(),
                  "no array for input 'c'; it has: a, b, limit");
}

TEST(NpzData, ValuesAreConverted) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "d.npz";
  write_npz(path, {{"x", Tensor::from<uint8_t>({1, 2}, {2, 1})},
                   {"y", Tensor::from<float>({3, 4}, {2, 1})}});
  const std::string spec = "npz:" + path.string();
  const Batch batch = get(*open(spec, model({-1, 1})), {0, 1});
  EXPECT_EQ(batch.inputs.at("image").data<float>()[1], 2.0f);
  EXPECT_EQ(batch.labels, (std::vector<int64_t>{3, 4}));
  write_npz(path, {{"x", Tensor::from<float>({1, 2}, {2, 1})}});
  EXPECT_THROW((void)open(spec, model({-1, 1}, DType::int8)), Error);
  write_npz(path, {{"x", Tensor::from<int64_t>({1, 200}, {2, 1})}});
  EXPECT_EQ(error_of([&] {
              (void)open(spec, model({-1, 1}, DType::int8));
            }).code(),
            ErrorCode::numeric_failure);
}

TEST(NpzData, SamplesThatAreNotFiniteAreNamed) {
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "d.npz").string();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const DType dtype : {DType::float32, DType::float16}) {
    for (const float bad : {kNan, kInf, -kInf}) {
      write_npz(
          path,
          {{"x", Tensor::from_floats(std::vector<float>{1, 2, 3, bad, 5, 6}, dtype, Dims{3, 2})}});
      const auto data = open("npz:" + path, model({-1, 2}, dtype));
      EXPECT_EQ(get(*data, {0, 2}).inputs.at("image").dim(0), 2) << "the others are usable";
      const Error e = error_of([&] { (void)get(*data, {0, 1}); });
      EXPECT_EQ(e.code(), ErrorCode::numeric_failure);
      expect_contains(e.what(), "d.npz: array 'image', sample 1 holds ");
    }
  }
}

TEST(NpzData, LabelsAreChecked) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "d.npz";
  const auto refuse = [&](Tensor y, const std::string& piece) {
    write_npz(path, {{"x", Tensor(DType::float32, {2, 1})}, {"y", std::move(y)}});
    expect_contains(error_of([&] { (void)open("npz:" + path.string()); }).what(), piece);
  };
  refuse(Tensor::vector<int64_t>({1, 2, 3}), "has the shape [3] for 2 samples");
  refuse(Tensor(DType::float32, {2, 10}), "labels are one number");
  refuse(Tensor::vector<float>({1, 0.5f}), "holds 0.5");
  refuse(Tensor::vector<float>({1, std::numeric_limits<float>::quiet_NaN()}), "no class number");
  write_npz(path, {{"x", Tensor(DType::float32, {0, 1})}});
  expect_contains(error_of([&] { (void)open("npz:" + path.string()); }).what(), "is empty");
}

}  // namespace
}  // namespace narrow
