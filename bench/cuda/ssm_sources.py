"""The authors' mamba_ssm and causal_conv1d from unbuilt sources, as scripts/cuda/pack_peers.sh lays them into one folder.

Mamba-2 needs of mamba_ssm its Triton kernels alone: the package's __init__, which imports Mamba-1 and Mamba-3 as well, is left out, and
selective_scan_cuda (Mamba-1) is an empty module. causal_conv1d is one compiled extension; without it the convolution is PyTorch's.
"""
import importlib
import os
import sys
import types
from concurrent.futures import ThreadPoolExecutor


def tune_in_parallel(variants, workers):
    """Each kernel's autotuner compiles its variants side by side before it times them; `variants` > 0 takes the first of them only.

    What it finds is kept on the disk for the next process, which then compiles the best variant alone.
    """
    os.environ['TRITON_CACHE_AUTOTUNING'] = '1'
    from triton.runtime._async_compile import AsyncCompileMode
    from triton.runtime.autotuner import Autotuner
    choose, look_up = Autotuner.prune_configs, Autotuner.check_disk_cache

    def prune(self, kwargs):
        self.call = kwargs
        configs = choose(self, kwargs)
        return configs[:variants] if variants > 0 else configs

    def check(self, key, configs, measure):
        def compile_all_and_measure():
            try:
                with ThreadPoolExecutor(workers) as pool, AsyncCompileMode(pool, ignore_errors=True):
                    for config in configs:
                        self.fn.run(*self.nargs.values(), **{**self.call, 'warmup': True}, **config.all_kwargs())
            except Exception as error:  # they are then compiled one by one
                print('variants one by one:', repr(error)[:200], file=sys.stderr)
            measure()
        return look_up(self, key, configs, compile_all_and_measure)

    Autotuner.prune_configs, Autotuner.check_disk_cache = prune, check


def load(folder, variants=0, workers=None):
    """Makes `mamba_ssm` (and `causal_conv1d` where it was built) importable from `folder`. Returns what is there, in words."""
    tune_in_parallel(variants, workers or os.cpu_count())
    sys.path.insert(0, folder)
    package = types.ModuleType('mamba_ssm')
    package.__path__ = [os.path.join(folder, 'mamba_ssm')]
    package.__version__ = version(os.path.join(folder, 'mamba_ssm', '__init__.py'))
    sys.modules['mamba_ssm'] = package
    sys.modules['selective_scan_cuda'] = types.ModuleType('selective_scan_cuda')
    try:
        importlib.import_module('causal_conv1d_cuda')
        convolution = 'causal_conv1d ' + importlib.import_module('causal_conv1d').__version__
    except ImportError as error:
        print('no causal_conv1d:', error, file=sys.stderr)
        sys.modules['causal_conv1d'] = None  # also where a folder of its Python files lies beside: PyTorch's convolution then
        convolution = "PyTorch's convolution"
    return f'mamba_ssm {package.__version__}', convolution


def version(path):
    with open(path, encoding='utf8') as file:
        return next(line.split('=')[1].strip(' "\'\n') for line in file if line.startswith('__version__'))
