//! `gametape model inspect` for people.

use gametape_model::Description;

/// A description in lines.
pub fn describe(d: &Description) -> String {
    let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
    format!(
        "family        {}, {} layers, width {}, {}/{} heads, {}\n\
         parameters    {:.1} M\n\
         vocabulary    {}\n\
         context       {} tokens\n\
         on disk       {}\n\
         to sample     {} on the CPU (f32), {} on CUDA (bf16), 32 conversations of 1024 tokens\n\
         to train      {} full, {} LoRA of rank 16; {} of activations come on top (2 rows of 1024 tokens)\n",
        d.family,
        d.layers,
        d.hidden,
        d.heads.0,
        d.heads.1,
        d.format,
        d.parameters as f64 / 1e6,
        d.vocabulary,
        d.context,
        gib(d.disk_bytes),
        gib(d.sample_bytes_cpu),
        gib(d.sample_bytes_cuda),
        gib(d.train_full_bytes),
        gib(d.train_lora_bytes),
        gib(d.train_activation_bytes),
    )
}
