import torch

from pipeline.task import Split, classification, split_by_seed


class Rows:
    def __init__(self, count=3000):
        draw = torch.Generator().manual_seed(0)
        self.kinds = torch.randint(6, (count, 2), generator=draw)
        self.numbers = torch.randn(count, 3, generator=draw)
        self.labels = (self.kinds[:, 0] - self.kinds[:, 1] + self.numbers.sum(1) > 0).long()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"kinds": self.kinds[index], "numbers": self.numbers[index]}, self.labels[index]


def task():
    return classification(*split_by_seed(Split(Rows()), [0.6, 0.15, 0.25]))
