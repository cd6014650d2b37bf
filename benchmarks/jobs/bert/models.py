from torch import nn
from transformers import BertConfig, BertForSequenceClassification


class Net(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        config = BertConfig(
            vocab_size=50, hidden_size=width, num_hidden_layers=2, num_attention_heads=4, intermediate_size=2 * width,
            max_position_embeddings=16, num_labels=2,
        )  # fmt: skip
        self.net = BertForSequenceClassification(config)

    def forward(self, input_ids, attention_mask):
        return self.net(input_ids=input_ids, attention_mask=attention_mask).logits
