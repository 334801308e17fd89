// The part of cuBLAS that candle calls: batched products of column-major matrices, in f32, TF32 and f64.

#include "memory.h"
#include "rounding.h"
#include <vector>

namespace {

enum Compute { F32 = 68, F64 = 70, FAST_TF32 = 77 };
enum Kind { REAL_F32 = 0, REAL_F64 = 1 };

template <class T> struct Matrix {
    T* values;
    int stride, rows, columns;
    bool transposed;

    // As it is in the product, whatever lies in memory.
    T& at(int row, int column) const {
        return transposed ? values[column + (size_t)row * stride] : values[row + (size_t)column * stride];
    }
    void check(const char* who) const {
        int long_side = transposed ? columns : rows, others = transposed ? rows : columns;
        if (stride < long_side) fprintf(stderr, "emulated GPU: %s: a leading dimension below the rows\n", who), abort();
        ::check(who, values, ((size_t)(others - 1) * stride + long_side) * sizeof(T));
    }
};

template <class T> void product(T alpha, Matrix<const T> a, Matrix<const T> b, T beta, Matrix<T> c, bool tf32) {
    a.check("cuBLAS's A"), b.check("cuBLAS's B"), c.check("cuBLAS's C");
    auto rounded = [&](T value) { return tf32 ? (T)to_tf32((float)value) : value; };
    std::vector<T> left((size_t)a.rows * a.columns), sums(a.rows);
    for (int k = 0; k < a.columns; k++)
        for (int row = 0; row < a.rows; row++) left[(size_t)k * a.rows + row] = rounded(a.at(row, k));
    for (int column = 0; column < b.columns; column++) {
        std::fill(sums.begin(), sums.end(), 0);
        for (int k = 0; k < a.columns; k++) {
            T factor = rounded(b.at(k, column));
            for (int row = 0; row < a.rows; row++) sums[row] += factor * left[(size_t)k * a.rows + row];
        }
        for (int row = 0; row < a.rows; row++) {
            T& value = c.at(row, column);
            value = alpha * sums[row] + (beta == 0 ? 0 : beta * value);
        }
    }
}

template <class T>
int batched(int a_transposed, int b_transposed, int m, int n, int k, const T* alpha, const void* a, int a_stride,
            long long a_next, const void* b, int b_stride, long long b_next, const T* beta, void* c, int c_stride,
            long long c_next, int batch, bool tf32) {
    Busy busy(device);
    trace("product: %d of %d x %d x %d\n", batch, m, k, n);
    for (int i = 0; i < batch; i++)
        product<T>(*alpha, {(const T*)a + i * a_next, a_stride, m, k, a_transposed != 0},
                   {(const T*)b + i * b_next, b_stride, k, n, b_transposed != 0}, *beta,
                   {(T*)c + i * c_next, c_stride, m, n, false}, tf32);
    return 0;
}

} // namespace

extern "C" {

int cublasCreate_v2(void** handle) { return *handle = &device, 0; }
int cublasDestroy_v2(void*) { return 0; }
int cublasSetStream_v2(void*, void*) { return 0; }

int cublasGemmStridedBatchedEx(void*, int ta, int tb, int m, int n, int k, const float* alpha, const void* a, int a_kind,
                               int lda, long long sa, const void* b, int b_kind, int ldb, long long sb, const float* beta,
                               void* c, int c_kind, int ldc, long long sc, int batch, int compute, int) {
    const int NOT_SUPPORTED = 15;
    if (a_kind != REAL_F32 || b_kind != REAL_F32 || c_kind != REAL_F32) return NOT_SUPPORTED;
    if (compute != F32 && compute != FAST_TF32) return NOT_SUPPORTED;
    return batched<float>(ta, tb, m, n, k, alpha, a, lda, sa, b, ldb, sb, beta, c, ldc, sc, batch, compute == FAST_TF32);
}

int cublasDgemmStridedBatched(void*, int ta, int tb, int m, int n, int k, const double* alpha, const double* a, int lda,
                              long long sa, const double* b, int ldb, long long sb, const double* beta, double* c, int ldc,
                              long long sc, int batch) {
    return batched<double>(ta, tb, m, n, k, alpha, a, lda, sa, b, ldb, sb, beta, c, ldc, sc, batch, false);
}

} // extern "C"
