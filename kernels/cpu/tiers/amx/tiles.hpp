// The tile registers of AMX as functions: the instructions, or with ONNXQ_EMULATE_AMX the same in software, for tests
// on CPUs without them. The software follows the pseudocode of Intel's manual (volume 2, LDTILECFG, TILELOADD,
// TILESTORED, TDPBUSD); where an instruction would fault, it aborts.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(ONNXQ_EMULATE_AMX)
#include <cstdio>
#include <cstdlib>
#endif

namespace onnxq {
namespace {

constexpr int kTiles = 8;
constexpr int kTileRows = 16;
constexpr int kTileBytes = 64;  // of a row

struct alignas(64) TileConfig {
  uint8_t palette;  // 1; 0: no tiles
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileConfig) == 64, "as LDTILECFG reads it");

#if !defined(ONNXQ_EMULATE_AMX)

// In assembly, as GCC's intrinsics do not declare that they read and write memory: stores before a load would be moved
// past it.
static inline void tile_configure(const TileConfig& config) {
  __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
}

static inline void tile_release() { __asm__ volatile("tilerelease" : : : "memory"); }

template <int T>
static inline void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(T));
}

template <int T>
static inline void tile_load(const void* base, ptrdiff_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(base), "r"(stride), "i"(T) : "memory");
}

// The same for what is read once in a while: it displaces less of the first-level cache.
template <int T>
static inline void tile_load_streamed(const void* base, ptrdiff_t stride) {
  __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(base), "r"(stride), "i"(T) : "memory");
}

template <int T>
static inline void tile_store(void* base, ptrdiff_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(base), "r"(stride), "i"(T) : "memory");
}

// C += A · B: unsigned bytes of A by signed bytes of B.
template <int C, int A, int B>
static inline void tile_dot() {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

#else

struct Tiles {
  bool configured;
  TileConfig config;
  uint8_t data[kTiles][kTileRows][kTileBytes];
};

static inline Tiles& tiles_of_thread() {
  static thread_local Tiles tiles;
  return tiles;
}

static inline void tile_check(bool legal, const char* what) {
  if (legal) return;
  std::fprintf(stderr, "AMX would fault: %s\n", what);
  std::abort();
}

// The registers; aborts unless tile T is configured.
static inline Tiles& tiles_with(int t) {
  Tiles& tiles = tiles_of_thread();
  tile_check(tiles.configured, "no tiles are configured");
  tile_check(t < kTiles && tiles.config.rows[t] != 0, "the tile is not configured");
  return tiles;
}

static inline void tile_release() { tiles_of_thread() = {}; }

static inline void tile_configure(const TileConfig& config) {
  tile_check(config.palette <= 1, "the palette does not exist");
  if (config.palette == 0) return tile_release();
  for (const uint8_t byte : config.reserved) tile_check(byte == 0, "a reserved byte is not zero");
  for (int t = 0; t < 16; t++) {
    const bool there = config.rows[t] != 0;
    tile_check(there == (config.row_bytes[t] != 0), "a tile has rows without bytes or bytes without rows");
    tile_check(!there || t < kTiles, "there are only eight tiles");
    tile_check(config.rows[t] <= kTileRows && config.row_bytes[t] <= kTileBytes, "a tile is larger than the palette's");
  }
  Tiles& tiles = tiles_of_thread();
  tiles = {};
  tiles.configured = true;
  tiles.config = config;
}

template <int T>
static inline void tile_zero() {
  __builtin_memset(tiles_with(T).data[T], 0, sizeof(Tiles::data[T]));
}

template <int T>
static inline void tile_load(const void* base, ptrdiff_t stride) {
  Tiles& tiles = tiles_with(T);
  const int start = tiles.config.start_row;
  for (int r = start; r < tiles.config.rows[T]; r++) {
    uint8_t* const row = tiles.data[T][r];
    __builtin_memset(row, 0, kTileBytes);
    __builtin_memcpy(row, static_cast<const uint8_t*>(base) + r * stride, tiles.config.row_bytes[T]);
  }
  for (int r = tiles.config.rows[T]; r < kTileRows; r++) __builtin_memset(tiles.data[T][r], 0, kTileBytes);
  tiles.config.start_row = 0;
}

template <int T>
static inline void tile_load_streamed(const void* base, ptrdiff_t stride) {
  tile_load<T>(base, stride);
}

template <int T>
static inline void tile_store(void* base, ptrdiff_t stride) {
  Tiles& tiles = tiles_with(T);
  for (int r = tiles.config.start_row; r < tiles.config.rows[T]; r++)
    __builtin_memcpy(static_cast<uint8_t*>(base) + r * stride, tiles.data[T][r], tiles.config.row_bytes[T]);
  tiles.config.start_row = 0;
}

template <int C, int A, int B>
static inline void tile_dot() {
  static_assert(C != A && C != B && A != B, "equal tiles fault");
  Tiles& tiles = tiles_with(C);
  tiles_with(A);
  tiles_with(B);
  const TileConfig& config = tiles.config;
  tile_check(config.row_bytes[A] % 4 == 0 && config.row_bytes[B] % 4 == 0 && config.row_bytes[C] % 4 == 0,
             "a row is not a multiple of 4 bytes");
  tile_check(config.rows[C] == config.rows[A], "C and A differ in rows");
  tile_check(config.row_bytes[C] == config.row_bytes[B], "C and B differ in columns");
  tile_check(config.row_bytes[A] / 4 == config.rows[B], "A's columns are not B's rows");
  tile_check(config.start_row == 0, "a row to start from is set");
  for (int m = 0; m < config.rows[C]; m++) {
    uint32_t sums[kTileBytes / 4];
    __builtin_memcpy(sums, tiles.data[C][m], kTileBytes);
    for (int k = 0; k < config.row_bytes[A]; k++) {
      const int32_t a = tiles.data[A][m][k];
      const uint8_t* const row = tiles.data[B][k / 4];
      for (int n = 0; n < config.row_bytes[C] / 4; n++)
        sums[n] += static_cast<uint32_t>(a * static_cast<int8_t>(row[n * 4 + k % 4]));  // wraps
    }
    __builtin_memset(tiles.data[C][m], 0, kTileBytes);
    __builtin_memcpy(tiles.data[C][m], sums, config.row_bytes[C]);
  }
  for (int m = config.rows[C]; m < kTileRows; m++) __builtin_memset(tiles.data[C][m], 0, kTileBytes);
}

#endif

}  // namespace
}  // namespace onnxq
