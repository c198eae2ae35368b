// COCO's run-length encoding: lengths of alternating runs of 0 and 1, column by column.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace boxes {

// Read compressed run lengths: from the fourth on, differences to the run of the same kind before, in base 32.
inline std::vector<int64_t> decode_runs(const char *text, const char *end) {
  std::vector<int64_t> runs;
  while (text < end) {
    uint64_t bits = 0;
    int shift = 0, digit = 0;
    do {
      digit = *text++ - 48;
      if (shift < 60) bits |= static_cast<uint64_t>(digit & 31) << shift;
      shift += 5;
    } while ((digit & 32) && text < end);
    if ((digit & 16) && shift < 64) bits |= ~uint64_t{0} << shift;
    const int64_t value = static_cast<int64_t>(bits);
    runs.push_back(runs.size() > 2 ? value + runs[runs.size() - 2] : value);
  }
  return runs;
}

inline void append_run(std::string &text, int64_t value) {
  bool more = true;
  while (more) {
    const int digit = static_cast<int>(value & 31);
    value >>= 5;
    more = value != ((digit & 16) ? -1 : 0);
    text.push_back(static_cast<char>((more ? digit | 32 : digit) + 48));
  }
}

// Collects the runs of 1 of a mask by rising position and writes all runs as text.
class RunEncoder {
 public:
  explicit RunEncoder(int64_t pixels) : pixels_(pixels) {}

  void add(int64_t begin, int64_t end) {
    if (!edges_.empty() && edges_.back() == begin)
      edges_.back() = end;  // runs that touch across two columns are one
    else
      edges_.insert(edges_.end(), {begin, end});
  }

  std::string text() {
    edges_.push_back(pixels_);
    std::string result;
    int64_t position = 0, before[2] = {0, 0};
    for (size_t i = 0; i < edges_.size(); ++i) {
      const int64_t run = edges_[i] - position;
      if (i > 0 && i + 1 == edges_.size() && run == 0) break;
      append_run(result, i > 2 ? run - before[i % 2] : run);
      before[i % 2] = run;
      position = edges_[i];
    }
    return result;
  }

 private:
  int64_t pixels_;
  std::vector<int64_t> edges_;
};

}  // namespace boxes
