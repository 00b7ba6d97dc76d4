// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "narrow/core/error.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

class FileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("narrow_file_test_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  size_t files() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  fs::path folder_;
};

TEST_F(FileTest, CommittedBytesAreThere) {
  const fs::path path = folder_ / "a.bin";
  std::string big(3 << 20, 'x');  // past the buffer
  AtomicFile file(path);
  file.write("head");
  file.write(big);
  EXPECT_EQ(file.position(), 4 + big.size());
  EXPECT_FALSE(fs::exists(path));
  file.commit();
  EXPECT_EQ(read_text(path), "head" + big);
  EXPECT_EQ(files(), 1u);
}

TEST_F(FileTest, AnAbandonedFileLeavesTheOldOneWhole) {
  const fs::path path = folder_ / "a.txt";
  write_text(path, "old");
  {
    AtomicFile file(path);
    file.write("new");
  }
  EXPECT_EQ(read_text(path), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(FileTest, AKilledWriterLeavesTheOldOneWhole) {
  const fs::path path = folder_ / "a.txt";
  write_text(path, "old");
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(path);
    file.write(std::string(4 << 20, 'y'));
    ::raise(SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(read_text(path), "old");
}

TEST_F(FileTest, AFullDiskIsAnErrorAndLeavesTheOldOneWhole) {
  const fs::path path = folder_ / "a.txt";
  write_text(path, "old");
  const pid_t child = ::fork();
  if (child == 0) {
    // A limit on the size of files stands in for a full disk: write() fails the same way.
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1 << 20, 1 << 20};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      AtomicFile file(path);
      file.write(std::string(8 << 20, 'y'));
      file.commit();
    } catch (const Error& e) {
      ::_exit(e.code() == ErrorCode::io_error ? 42 : 1);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 42);
  EXPECT_EQ(read_text(path), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(FileTest, WhatAKilledWriterLeftIsNotInTheWay) {
  // Process numbers come again (in a container at every start), and so do temporary names.
  const fs::path path = folder_ / "a.txt";
  fs::path next;  // the name that this process would use now
  {
    const AtomicFile probe(path);
    next = probe.temporary_path();
  }
  const std::string name = next.string();
  const size_t dot = name.rfind('.');
  const int number = std::stoi(name.substr(dot + 1));
  for (int i = 1; i <= 3; ++i) {
    std::ofstream(name.substr(0, dot + 1) + std::to_string(number + i)) << "left";
  }
  write_text(path, "new");
  EXPECT_EQ(read_text(path), "new");
  EXPECT_EQ(files(), 4u);
}

TEST_F(FileTest, APathThatCannotBeRenamedIsNamed) {
  write_text(folder_ / "from", "x");
  rename_path(folder_ / "from", folder_ / "to");
  EXPECT_EQ(read_text(folder_ / "to"), "x");
  try {
    rename_path(folder_ / "from", folder_ / "to");
    ADD_FAILURE() << "renamed what is not there";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::io_error);
    EXPECT_NE(std::string(e.what()).find("from"), std::string::npos);
  }
}

TEST_F(FileTest, OnlyRegularFilesAreReadAndReplaced) {
  const fs::path pipe = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);  // opening a pipe that nobody writes must not wait
    int refused = 0;
    for (const auto open : {+[](const fs::path& p) { MappedFile::open(p); },
                            +[](const fs::path& p) { AtomicFile file(p); }}) {
      try {
        open(pipe);
      } catch (const Error& e) {
        refused += e.code() == ErrorCode::invalid_argument ? 1 : 0;
      }
    }
    ::_exit(refused);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 2);
  EXPECT_TRUE(fs::is_fifo(pipe));
  fs::create_symlink("/dev/null", folder_ / "link");
  EXPECT_THROW(AtomicFile(folder_ / "link"), Error);
  EXPECT_EQ(files(), 2u);
}

TEST_F(FileTest, MissingFilesAndFoldersAreNamed) {
  try {
    MappedFile::open(folder_ / "none");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::not_found);
    EXPECT_NE(e.message().find("none"), std::string::npos);
  }
  EXPECT_THROW(MappedFile::open(folder_), Error);
  EXPECT_THROW(AtomicFile(folder_ / "no" / "such"), Error);
  write_text(folder_ / "empty", "");
  EXPECT_EQ(MappedFile::open(folder_ / "empty")->bytes().size(), 0u);
  EXPECT_THROW(read_text(folder_ / "empty" / "x"), Error);
}

}  // namespace
}  // namespace narrow
