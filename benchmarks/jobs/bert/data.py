import torch

from pipeline.task import Split, classification, split_by_seed


class Sentences:
    def __init__(self, count=3000, length=12):
        draw = torch.Generator().manual_seed(0)
        self.ids = torch.randint(2, 50, (count, length), generator=draw)
        ends = torch.randint(4, length + 1, (count, 1), generator=draw)
        self.mask = (torch.arange(length) < ends).long()
        self.labels = (((self.ids < 26) * self.mask).sum(1) * 2 > ends[:, 0]).long()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index], "attention_mask": self.mask[index]}, self.labels[index]


def task():
    return classification(*split_by_seed(Split(Sentences()), [0.6, 0.15, 0.25]))
