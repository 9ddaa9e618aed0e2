"""Make trained networks smaller, with latency measured on the device they will run on.

\b
  netlathe demo                                  the whole path on this machine, in a few minutes
  netlathe serve                                 API, dashboard, conductor and an agent for this machine
  netlathe submit --model net.onnx --data images.npz --device local-onnxruntime-t1-fp32 \\
                  --max-latency-ratio 0.5 --max-accuracy-drop 0.02 --watch

Clients read NETLATHE_URL (default http://127.0.0.1:8000), NETLATHE_TOKEN (default: the local server's token) and
NETLATHE_PROXY (default: none).

Exit codes: 0 done and all limits met, 1 done but a limit missed, 2 wrong usage, 3 failed.
"""
