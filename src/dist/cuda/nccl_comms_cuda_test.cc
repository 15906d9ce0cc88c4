// How communicators end, with an NCCL whose aborts wait as the real one's do. Needs no GPU.
#include "dist/cuda/nccl_comms.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>

namespace fathom::dist::cuda {
namespace {

using namespace std::chrono_literals;

// Two communicators of two ranks here each: the last abort of each waits for the ranks' graphs.
class FakeNccl {
 public:
  FakeNccl() {
    current() = this;
    nccl.comm_abort = [](Nccl::Comm comm) { return current()->abort(comm); };
  }
  static Nccl::Comm comm(int group, int rank) {
    return reinterpret_cast<Nccl::Comm>(static_cast<intptr_t>(group * 10 + rank + 1));
  }
  void destroy_graphs() {
    const std::lock_guard lock(mutex_);
    graphs_ = false;
    changed_.notify_all();
  }
  bool all_told() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 10s, [&] { return told_.size() == 4; });
  }

  Nccl nccl;

 private:
  static FakeNccl*& current() {
    static FakeNccl* fake = nullptr;
    return fake;
  }
  int abort(Nccl::Comm comm) {
    std::unique_lock lock(mutex_);
    told_.insert(comm);
    changed_.notify_all();
    const int64_t group = reinterpret_cast<intptr_t>(comm) / 10;
    const auto ranks = std::count_if(told_.begin(), told_.end(), [&](Nccl::Comm other) {
      return reinterpret_cast<intptr_t>(other) / 10 == group;
    });
    if (ranks == 2) changed_.wait(lock, [&] { return !graphs_; });
    return Nccl::kSuccess;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<Nccl::Comm> told_;
  bool graphs_ = true;
};

class NcclCommsTest : public testing::Test {
 protected:
  NcclCommsTest() {
    for (const int group : {0, 1}) {
      for (const int rank : {0, 1}) comms->add(FakeNccl::comm(group, rank));
    }
  }
  FakeNccl fake;
  const std::shared_ptr<NcclComms> comms = std::make_shared<NcclComms>(fake.nccl);
};

TEST_F(NcclCommsTest, AllAreToldWhileGraphsLive) {
  NcclComms::end(comms, 1s);
  EXPECT_TRUE(comms->ended());
  EXPECT_TRUE(fake.all_told());
  EXPECT_FALSE(comms->wait(20ms));
  EXPECT_FALSE(comms->remove(FakeNccl::comm(0, 0)));
  fake.destroy_graphs();
  EXPECT_TRUE(comms->wait(10s));
}

TEST_F(NcclCommsTest, AnEndWaitsForCallsAWhile) {
  std::shared_lock call(comms->calls());
  std::thread ends([&] { NcclComms::end(comms, 50ms); });
  // The call is told although it does not return.
  EXPECT_TRUE(fake.all_told());
  ends.join();
  call.unlock();
  fake.destroy_graphs();
  EXPECT_TRUE(comms->wait(10s));
}

TEST_F(NcclCommsTest, WhoRemovesOneAbortsIt) {
  EXPECT_TRUE(comms->remove(FakeNccl::comm(1, 1)));
  EXPECT_FALSE(comms->remove(FakeNccl::comm(1, 1)));
  EXPECT_EQ(fake.nccl.comm_abort(FakeNccl::comm(1, 1)), Nccl::kSuccess);
  fake.destroy_graphs();
  NcclComms::end(comms, 1s);
  EXPECT_TRUE(fake.all_told());
  EXPECT_TRUE(comms->wait(10s));
}

}  // namespace
}  // namespace fathom::dist::cuda
