"""Small models of every kind as text; the named inputs become initializers of random values."""

from __future__ import annotations

__all__ = ["TEXTS"]

#: By name: the model, and which of its inputs are weights.
TEXTS: dict[str, tuple[str, str]] = {
    "mlp": ("""
        <ir_version: 8, opset_import: ["" : 17]>
        mlp (float[N,8] x, float[12,8] w, float[12] b, float[4,12] v) => (float[N,4] y)
        { h = Gemm <transB = 1> (x, w, b) a = Relu(h) y = Gemm <transB = 1> (a, v) }
        """, "w b v"),
    "softmax classifier": ("""
        <ir_version: 9, opset_import: ["" : 20]>
        net (float[N,6] x, float[6,10] w, float[10] b, float[10,3] v) => (float[N,3] y)
        { h = MatMul(x, w) s = Add(h, b) a = Gelu(s) l = MatMul(a, v) y = Softmax(l) }
        """, "w b v"),
    "convolutions": ("""
        <ir_version: 8, opset_import: ["" : 17]>
        cnn (float[N,3,8,8] x, float[6,3,3,3] w, float[6] s, float[6] b, float[6] m, float[6] r,
             float[8,6,3,3] u, float[8] ub, float[8,8,1,1] t, float[8,4] v)
            => (float[N,4] y)
        {
            c = Conv <pads = [1,1,1,1]> (x, w) n = BatchNormalization(c, s, b, m, r) a = Relu(n)
            p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (a)
            d = Conv <pads = [1,1,1,1]> (p, u, ub) e = Relu(d) f = Conv(e, t) g = Add(f, d)
            q = GlobalAveragePool(g) z = Flatten(q) y = MatMul(z, v)
        }""", "w s b m r u ub t v"),
    "depthwise and upsampling": ("""
        <ir_version: 8, opset_import: ["" : 13]>
        dw (float[N,4,6,6] x, float[4,1,3,3] w, float[4,6,2,2] u, float[4] scales)
            => (float[N,6,24,24] y)
        {
            c = Conv <group = 4, pads = [1,1,1,1]> (x, w) a = Clip(c)
            t = ConvTranspose <strides = [2,2]> (a, u)
            k = Constant <value = float[4] {1,1,2,2}> ()
            y = Resize <mode = "nearest"> (t, , k)
        }""", "w u scales"),
    "dropout, old": ("""
        <ir_version: 3, opset_import: ["" : 7]>
        old (float[2,8] x, float[8,12] w, float[12] b, float[12,4] v) => (float[2,4] y)
        {
            h = MatMul(x, w) s = Add(h, b) a = Relu(s) d = Dropout <ratio = 0.5> (a)
            l = MatMul(d, v) y = Softmax <axis = 1> (l)
        }""", "w b v"),
    "dropout, inputs": ("""
        <ir_version: 8, opset_import: ["" : 15]>
        drop (float[N,8] x, float[8,12] w, float[12,4] v, bool training) => (float[N,4] y)
        {
            r = Constant <value = float {0.5}> () t = Constant <value = bool {1}> ()
            h = MatMul(x, w) d, m = Dropout <seed = 1> (h, r, t) y = MatMul(d, v)
        }""", "w v training"),
    "recurrent": ("""
        <ir_version: 8, opset_import: ["" : 14]>
        rnn (float[T,N,4] x, float[1,20,4] w, float[1,20,5] r, float[1,40] b, float[1,9,5] g,
             float[1,9,3] k, float[3,2] v) => (float[T,1,N,3] y, float[1,N,5] h)
        {
            a, h, c = LSTM <hidden_size = 5> (x, w, r, b)
            ax = Constant <value = int64[1] {1}> () s = Squeeze(a, ax)
            y, z = GRU <hidden_size = 3, linear_before_reset = 1> (s, g, k)
        }""", "w r b g k v"),
    "attention": ("""
        <ir_version: 8, opset_import: ["" : 17]>
        att (float[N,5,8] x, float[8,8] q, float[8,8] k, float[8,8] v, float[8,8] o, float[8] s,
             float[8] b) => (float[N,5,8] y)
        {
            n = LayerNormalization(x, s, b)
            shape = Constant <value = int64[4] {0,5,2,4}> ()
            back = Constant <value = int64[3] {0,5,8}> ()
            half = Constant <value = float {0.5}> ()
            qm = MatMul(n, q) qr = Reshape(qm, shape) qt = Transpose <perm = [0,2,1,3]> (qr)
            km = MatMul(n, k) kr = Reshape(km, shape) kt = Transpose <perm = [0,2,3,1]> (kr)
            vm = MatMul(n, v) vr = Reshape(vm, shape) vt = Transpose <perm = [0,2,1,3]> (vr)
            l = MatMul(qt, kt) m = Mul(l, half) p = Softmax <axis = -1> (m) w = MatMul(p, vt)
            wt = Transpose <perm = [0,2,1,3]> (w) r = Reshape(wt, back) z = MatMul(r, o)
            y = Add(x, z)
        }""", "q k v o s b"),
    "computed shapes": ("""
        <ir_version: 8, opset_import: ["" : 17]>
        shapes (float[N,2,6] x, float[12,5] w, float[20,5] table, int64[3] ids)
            => (float[A,B] y, float[C,D] z)
        {
            s = Shape(x) zero = Constant <value = int64 {0}> () n = Gather(s, zero)
            one = Constant <value = int64[1] {0}> () u = Unsqueeze(n, one)
            rest = Constant <value = int64[1] {-1}> () t = Concat <axis = 0> (u, rest)
            f = Reshape(x, t) h = MatMul(f, w)
            start = Constant <value = int64 {0}> () stop = Constant <value = int64 {4}> ()
            step = Constant <value = int64 {1}> () i = Range(start, stop, step)
            e = Gather(table, i) reps = Constant <value = int64[2] {1,1}> () k = Tile(e, reps)
            two = Constant <value = int64[2] {4,5}> ()
            c = ConstantOfShape <value = float[1] {2}> (two) m = Mul(k, c)
            big = Constant <value = int64[2] {4,5}> () z = Expand(m, big) y = Relu(h)
        }""", "w table ids"),
    "branches and loops": ("""
        <ir_version: 8, opset_import: ["" : 17]>
        flow (float[N,4] x, bool c, int64 trips, float[4,4] w, float[4,4] v) => (float[N,4] y)
        {
            h = If (c) <
                then_branch = then_g () => (float[N,4] t) { t = MatMul(x, w) },
                else_branch = else_g () => (float[N,4] e) {
                    k = Constant <value = float[4,4] {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7}> ()
                    e = MatMul(x, k)
                }>
            go = Constant <value = bool {1}> () three = Constant <value = int64 {3}> ()
            y = Loop (three, go, h) <body = step (int64 i, bool going, float[N,4] s)
                => (bool on, float[N,4] r) { on = Identity(going) r = MatMul(s, v) }>
        }""", "w v"),
    "scan": ("""
        <ir_version: 8, opset_import: ["" : 17]>
        scanned (float[2,3] start, float[5,2,3] x, float[3,3] w)
            => (float[2,3] last, float[5,2,3] y)
        {
            last, y = Scan <num_scan_inputs = 1, body = step (float[2,3] s, float[2,3] e)
                => (float[2,3] t, float[2,3] o)
                { m = MatMul(e, w) t = Add(s, m) o = Identity(t) }> (start, x)
        }""", "w"),
    "functions": ("""
        <ir_version: 10, opset_import: ["" : 18, "local" : 1]>
        called (float[N,4] x, float[4,6] w, float[6,3] v) => (float[N,3] y)
        { h = local.dense <scale = 2.0> (x, w) y = local.dense(h, v) }
        <domain: "local", opset_import: ["" : 18]>
        inner (a) => (b) { b = Relu(a) }
        <domain: "local", opset_import: ["" : 18, "local" : 1]>
        dense <scale: float = 1.0> (a, b) => (c) {
            k = Constant <value_float : float = @scale> () m = MatMul(a, b) n = Mul(m, k)
            c = local.inner(n)
        }""", "w v"),
    "quantized": ("""
        <ir_version: 10, opset_import: ["" : 21]>
        qdq (float[N,4] x, int8[6,4] w, float[6] s, int8[6] z, uint8[6,3] q, float qs, uint8 qz)
            => (float[N,3] y)
        {
            d = DequantizeLinear <axis = 0> (w, s, z) h = Gemm <transB = 1> (x, d) a = Relu(h)
            xs = Constant <value = float {0.1}> () xz = Constant <value = uint8 {3}> ()
            b = QuantizeLinear(a, xs, xz) c = DequantizeLinear(b, xs, xz)
            e = DequantizeLinear(q, qs, qz) y = MatMul(c, e)
        }""", "w s z q qs qz"),
    "integer operators": ("""
        <ir_version: 8, opset_import: ["" : 13]>
        q (uint8[1,2,5,5] x, float xs, uint8 xz, int8[4,2,3,3] w, float ws, int8 wz, float ys,
           uint8 yz, int8[9,3] m) => (uint8[1,4,3,3] y, int32[1,4,3,3] z)
        {
            y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz) z = ConvInteger(x, w, xz)
        }""", "xs xz w ws wz ys yz m"),
    "fused": ("""
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        fused (float[N,3,8] x, float[8,24] w, float[24] b, float[8,6] v, float[6] c, float[8] g)
            => (float[N,3,6] y)
        {
            a = com.microsoft.Attention <num_heads = 2> (x, w, b)
            n, m, i = com.microsoft.SkipLayerNormalization(x, a, g)
            f = com.microsoft.FusedMatMul <alpha = 0.5> (n, v)
            y = com.microsoft.BiasGelu(f, c)
        }""", "w b v c g"),
    "einsum and reductions": ("""
        <ir_version: 8, opset_import: ["" : 17]>
        ein (float[N,4,3] x, float[3,5] w, float[5] p, float[4] idle) => (float[N,5] y)
        {
            e = Einsum <equation = "nij,jk->nik"> (x, w) q = PRelu(e, p)
            m = ReduceMean <axes = [1], keepdims = 0> (q) s = Sigmoid(m) y = Mul(m, s)
        }""", "w p idle"),
    "half precision": ("""
        <ir_version: 8, opset_import: ["" : 17]>
        half (float[N,6] x, float16[6,8] w, float16[8,3] v) => (float[N,3] y)
        {
            c = Cast <to = 10> (x) h = MatMul(c, w) a = Relu(h) l = MatMul(a, v)
            y = Cast <to = 1> (l)
        }""", "w v"),
    "concatenated": ("""
        <ir_version: 8, opset_import: ["" : 17]>
        cat (float[N,6] x, float[6,4] w, float[6,4] v, float[4,4] u)
            => (float[N,4] y, float[N,4] z)
        {
            a = MatMul(x, w) b = MatMul(x, v) c = Concat <axis = 1> (a, b)
            p, q = Split <axis = 1>(c)
            r = Mul(p, q) t = Transpose(u) y = MatMul(r, t) z = MatMul(r, u)
        }""", "w v u"),
}  # fmt: skip
