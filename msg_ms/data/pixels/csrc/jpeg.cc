// The markers of JPEG files; msg_ms/data/pixels/decode.py explains the checks.
#include <algorithm>

#include "bytes.h"

namespace images {
namespace {

constexpr int kIntact = 1, kPlain = 2;
constexpr int kEndOfImage = 0xD9, kStartOfScan = 0xDA, kProgressive = 0xC2, kQuantization = 0xDB, kJfif = 0xE0;

bool is_frame(int marker) { return marker == 0xC0 || marker == 0xC1 || marker == kProgressive; }

bool is_other_frame(int marker) {
  return marker >= 0xC3 && marker <= 0xCF && marker != 0xC4 && marker != 0xCC;  // tables, and arithmetic conditioning
}

int64_t big_endian(const uint8_t *p, int64_t count) {
  int64_t value = 0;
  for (int64_t i = 0; i < count; ++i) value = value << 8 | p[i];
  return value;
}

// Whether Pillow accepts a segment of a header without a look at other data.
bool is_plain_segment(int marker, const uint8_t *p, int64_t size, int64_t max_pixels) {
  if (is_frame(marker)) {
    const bool grey = size == 9 && p[5] == 1, color = size == 15 && p[5] == 3;
    return (grey || color) && p[0] == 8 && big_endian(p + 1, 2) * big_endian(p + 3, 2) <= max_pixels;
  }
  if (marker == kQuantization) {
    for (int64_t i = 0; i < size; i += 65)
      if (p[i] >> 4) return false;
    return size % 65 == 0;
  }
  if (marker == 0xC4 || marker == 0xDD || marker == kStartOfScan) return true;
  return marker == kJfif && size >= 14 && std::memcmp(p, "JFIF", 5) == 0;
}

// The next marker in compressed data: neither a stuffed byte nor a restart marker. Returns `size` if there is none.
int64_t end_of_scan(const uint8_t *data, int64_t position, int64_t size) {
  while (position + 1 < size) {
    const void *found = std::memchr(data + position, 0xFF, size - 1 - position);
    if (found == nullptr) break;
    position = static_cast<const uint8_t *>(found) - data;
    const int next = data[position + 1];
    if (next != 0 && (next < 0xD0 || next > 0xD7)) return position;
    ++position;
  }
  return size;
}

}  // namespace
}  // namespace images

// Returns 1 if there is a baseline or progressive image up to an end marker, plus 2 if its header is plain.
EXPORT int scan_jpeg(const uint8_t *data, int64_t size, int64_t max_pixels) {
  using namespace images;
  if (size < 2 || data[0] != 0xFF || data[1] != 0xD8) return 0;
  int64_t position = 2;
  int frame = 0, scans = 0, plain = kPlain;
  while (position + 2 <= size && data[position] == 0xFF) {
    const int marker = data[position + 1];
    if (marker == kEndOfImage) return (scans == 1 || (scans > 1 && frame == kProgressive) ? kIntact : 0) | plain;
    const int64_t length = big_endian(data + position + 2, std::min<int64_t>(2, size - position - 2));
    if (is_other_frame(marker) || length < 2 || (is_frame(marker) && frame)) return 0;
    if (is_frame(marker)) frame = marker;
    const int64_t begin = std::min(position + 4, size), end = std::max(begin, std::min(position + 2 + length, size));
    if (!scans && !is_plain_segment(marker, data + begin, end - begin, max_pixels)) plain = 0;
    position += 2 + length;
    if (marker == kStartOfScan) {
      ++scans;
      position = end_of_scan(data, position, size);
      if (position == size) return 0;
    }
  }
  return 0;
}
