"""LogMel against the same arithmetic with its mel bank rebuilt at every call; ratios measured in one run, calls interleaved."""
import statistics
import time

import contrastasc
import torch
from contrastasc.frontend import LogMel


class Rebuilding(LogMel):
    "The reference's way: the bank is made anew in every forward pass."
    def forward(self, waveform):
        self.mel_bank = self._bank(self.fmax)
        return super().forward(waveform)


def main(repeats=60):
    torch.set_num_threads(2)
    kept, rebuilt = LogMel().eval(), Rebuilding().eval()
    for batch in (1, 64):
        wave = torch.randn(batch, 16000)
        times = {kept: [], rebuilt: []}
        with torch.inference_mode():
            assert torch.equal(kept(wave), rebuilt(wave))
            for _ in range(repeats if batch > 1 else 10 * repeats):
                for model in times:
                    began = time.perf_counter(); model(wave); times[model].append(time.perf_counter() - began)
        a, b = (1000 * statistics.median(t) for t in times.values())
        print(f"batch {batch:3}: kept {a:7.2f} ms, rebuilt {b:7.2f} ms, ratio {b / a:.2f}")


if __name__ == "__main__": main()
