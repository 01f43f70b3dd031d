// Predicts how long a part will take, and learns from how long it took. Knows no engine, no thread, no clock.
//
// docs/anytime.md explains it.
#pragma once

#include <vector>

#include "runtime.h"

namespace paraedge {

class Controller {
 public:
  static constexpr int kRequestsToLearn = 20;

  // `macs` of each branch: a branch that has not run yet is guessed from those that have.
  // Throws Refusal: the latency is not of these branches, or holds what is no time.
  Controller(std::vector<double> macs, const Latency& latency);

  // The time that a branch will probably (0.9) not exceed, with `busy` branches running, itself included.
  // NaN: nothing is known yet. Parts are numbered as in Latency: 0 is the stem, branches follow.
  double predicted_ms(size_t part, int busy) const;
  // The time of a part that runs alone on this device when nothing slows it down. NaN: it is still being learned.
  double base_ms(size_t part) const;
  // The time that a part alone will exceed as often as not, as things are now. NaN: it is still being learned.
  double expected_ms(size_t part) const;
  // A part took so long.
  void observe(size_t part, int busy, double ms);
  // A part has not ended after so long; how long it will take is not known.
  void outlasted(size_t part, int busy, double ms);
  // A branch was not started, since it would probably not have finished in time.
  void dropped(size_t part);
  // A request was not run, since its first prediction would probably have been late.
  void refused();
  // A caller that had waited returned so late: after what it waited for had ended, or its time to return had come.
  void returned(double late_ms);
  // A request ended without a wait.
  void did_not_wait();

  // How late a caller that waits will return, in all but three requests of a thousand; at least `least_ms`.
  double margin_ms(double least_ms) const;
  // What a prediction takes at least, probably (0.9): the stem and the first branch. NaN: nothing is known yet.
  double mandatory_ms() const;
  int requests_to_learn() const;

 private:
  double base(size_t part) const;  // guessed by multiply-adds when it was not seen yet
  double contention(int busy) const;
  void follow(double residual);

  std::vector<double> macs_;
  std::vector<double> contention_;  // logarithms, as are all times below
  std::vector<double> base_;  // a part by itself on a device that nothing slows down
  std::vector<int> seen_;  // how often a part was observed, up to kRequestsToLearn
  std::vector<bool> bound_only_;  // a part was never seen to finish: its base is a lower bound
  std::vector<double> doubt_;  // grows while a branch is dropped: what is predicted of it may be wrong by now
  double hope_ = 0;  // grows with every request that is not run: what is expected of all parts may be wrong by now
  double fast_ = 0, slow_ = 0;  // how much slower everything is now: two filters
  double tail_;  // 0.9 quantile of what is left
  double late_;  // 0.997 quantile of how late a caller that waits returns
};

}  // namespace paraedge
