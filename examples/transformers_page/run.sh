# The page's example on the command line: `mamba2 run` is transformers-cli run.
echo -e "Plants create energy through a process known as" | mamba2 run --task text-generation --model mistralai/Mamba-Codestral-7B-v0.1 --device 0
