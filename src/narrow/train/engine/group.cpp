// SPDX-License-Identifier: Apache-2.0
#if defined(NARROW_WITH_GLOO) && !defined(USE_C10D_GLOO)
#define USE_C10D_GLOO  // what libtorch's headers ask for
#endif
#include "narrow/train/engine/group.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "narrow/core/error.h"
#ifdef NARROW_WITH_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#endif

namespace narrow::train {

#ifdef NARROW_WITH_GLOO
namespace {

// Rank 0 may measure a model for long while the others wait. A rank that dies is seen at once, by
// its connection.
constexpr std::chrono::hours kPatience{12};
constexpr std::chrono::minutes kMeeting{5};

bool is_local(const std::string& address) {
  return address == "127.0.0.1" || address == "localhost" || address == "::1";
}

class GlooRanks final : public Ranks {
 public:
  explicit GlooRanks(const RankPlace& place) : place_(place) {
    guarded([&] {
      c10d::TCPStoreOptions meeting;
      meeting.port = place.port;
      meeting.isServer = place.rank == 0;
      meeting.numWorkers = static_cast<size_t>(place.size);
      meeting.timeout = kMeeting;
      store_ = c10::make_intrusive<c10d::TCPStore>(place.address, meeting);
      auto options = c10d::ProcessGroupGloo::Options::create(kPatience);
      options->devices.push_back(is_local(place.address)
                                     ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
                                     : c10d::ProcessGroupGloo::createDefaultDevice());
      group_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store_, place.rank, place.size,
                                                           std::move(options));
    });
  }

  int rank() const override { return place_.rank; }
  int size() const override { return place_.size; }

  void sum(std::span<float> values) override {
    guarded([&] {
      std::vector<torch::Tensor> all = {
          torch::from_blob(values.data(), {static_cast<int64_t>(values.size())})};
      group_->allreduce(all)->wait();
    });
  }

  double from_first(double value) override {
    guarded([&] {
      std::vector<torch::Tensor> one = {torch::full({1}, value, torch::kFloat64)};
      group_->broadcast(one)->wait();
      value = one[0].item<double>();
    });
    return value;
  }

  std::vector<std::string> gather(const std::string& bytes) override {
    std::vector<std::string> out;
    guarded([&] {
      const auto own = static_cast<int64_t>(bytes.size());
      const std::vector<torch::Tensor> sizes = gathered(torch::full({1}, own, torch::kInt64));
      int64_t most = 1;
      for (const torch::Tensor& size : sizes) most = std::max(most, size.item<int64_t>());
      torch::Tensor padded = torch::zeros({most}, torch::kUInt8);
      if (own > 0) std::memcpy(padded.data_ptr(), bytes.data(), bytes.size());
      const std::vector<torch::Tensor> parts = gathered(padded);
      for (size_t i = 0; i < parts.size(); ++i) {
        out.emplace_back(static_cast<const char*>(parts[i].data_ptr()),
                         static_cast<size_t>(sizes[i].item<int64_t>()));
      }
    });
    return out;
  }

 private:
  std::vector<torch::Tensor> gathered(const torch::Tensor& own) {
    std::vector<std::vector<torch::Tensor>> all(1);
    for (int i = 0; i < place_.size; ++i) all[0].push_back(torch::empty_like(own));
    std::vector<torch::Tensor> in = {own};
    group_->allgather(all, in)->wait();
    return all[0];
  }

  template <class F>
  void guarded(F&& act) const {
    try {
      act();
    } catch (const std::exception& e) {
      const std::string what = e.what();
      throw Error(
          ErrorCode::io_error,
          fmt::format("rank {} of {}: another rank is gone or cannot be reached ({}:{}): {}",
                      place_.rank, place_.size, place_.address, place_.port,
                      what.substr(0, what.find('\n'))),
          "see what the other ranks said; --resume goes on from the last checkpoint");
    }
  }

  RankPlace place_;
  c10::intrusive_ptr<c10d::TCPStore> store_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
};

}  // namespace

std::unique_ptr<Ranks> join_ranks(const RankPlace& place) {
  return std::make_unique<GlooRanks>(place);
}
#else
std::unique_ptr<Ranks> join_ranks(const RankPlace& /*place*/) {
  throw Error(ErrorCode::unsupported, "this libnarrow_train.so was built without Gloo",
              "install libgloo-dev (Debian, Ubuntu) and build narrow again");
}
#endif

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

torch::Tensor summed(const torch::Tensor& x, Ranks& ranks) {
  torch::Tensor out = x.detach().to(torch::kCPU).clone(torch::MemoryFormat::Contiguous);
  ranks.sum({out.data_ptr<float>(), static_cast<size_t>(out.numel())});
  return out.to(x.device());
}

struct SumOverRanks : torch::autograd::Function<SumOverRanks> {
  static torch::Tensor forward(AutogradContext* context, const torch::Tensor& x, Ranks* ranks) {
    context->saved_data["ranks"] = reinterpret_cast<int64_t>(ranks);
    return summed(x, *ranks);
  }
  static tensor_list backward(AutogradContext* context, const tensor_list& gradients) {
    auto* ranks = reinterpret_cast<Ranks*>(context->saved_data["ranks"].toInt());
    return {summed(gradients[0], *ranks), torch::Tensor()};
  }
};

}  // namespace

torch::Tensor sum_over_ranks(const torch::Tensor& x, Ranks& ranks) {
  return SumOverRanks::apply(x, &ranks);
}

}  // namespace narrow::train
